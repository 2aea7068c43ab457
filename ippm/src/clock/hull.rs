//! Convex hulls of points with whole-number coordinates, computed exactly.

/// A point: time and difference of clocks, nanoseconds from an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Point {
    pub t: i64,
    pub x: i64,
}

/// The lower hull of a cloud of points, by time: no point lies below it.
#[derive(Clone, Debug, Default)]
pub(super) struct LowerHull {
    vertices: Vec<Point>,
}

impl LowerHull {
    /// Sorts `points`, and keeps those of them that make the hull (Andrew's monotone chain).
    pub fn of(mut points: Vec<Point>) -> Self {
        points.sort_unstable();
        // Of points of one time the lowest, which comes first.
        points.dedup_by_key(|point| point.t);
        let mut vertices: Vec<Point> = Vec::new();
        for point in points {
            while let [.., a, b] = vertices[..] {
                if turns_left(a, b, point) {
                    break;
                }
                vertices.pop();
            }
            vertices.push(point);
        }
        Self { vertices }
    }

    pub fn vertices(&self) -> &[Point] {
        &self.vertices
    }

    /// The vertex at which `x - slope * t` is least. `None` of nothing.
    pub fn lowest(&self, slope: f64) -> Option<Point> {
        let at = self.first_edge(|from, to| slope_of(from, to) >= slope);
        self.vertices.get(at).copied()
    }

    /// The slope of the edge above time `t`; infinite before the first and after the last vertex, towards the side on
    /// which a line through the hull may still turn.
    pub fn slope_at(&self, t: f64) -> f64 {
        let (Some(first), Some(last)) = (self.vertices.first(), self.vertices.last()) else { return 0.0 };
        if t < first.t as f64 {
            return f64::NEG_INFINITY;
        }
        if t > last.t as f64 {
            return f64::INFINITY;
        }
        let at = self.first_edge(|_, to| to.t as f64 >= t);
        match (self.vertices.get(at), self.vertices.get(at + 1)) {
            (Some(from), Some(to)) => slope_of(*from, *to),
            _ => 0.0,
        }
    }

    /// The number of the first edge that `is`; edges for which it is not come first. The number of edges if none is.
    fn first_edge(&self, is: impl Fn(Point, Point) -> bool) -> usize {
        let (mut low, mut high) = (0, self.vertices.len().saturating_sub(1));
        while low < high {
            let middle = low.midpoint(high);
            if is(self.vertices[middle], self.vertices[middle + 1]) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        low
    }
}

fn slope_of(from: Point, to: Point) -> f64 {
    (i128::from(to.x) - i128::from(from.x)) as f64 / (i128::from(to.t) - i128::from(from.t)) as f64
}

fn turns_left(a: Point, b: Point, c: Point) -> bool {
    let difference = |p: i64, q: i64| i128::from(p) - i128::from(q);
    // Four factors below 2^64: their products are compared, not subtracted, and stay below 2^128 in magnitude.
    difference(b.t, a.t).saturating_mul(difference(c.x, a.x))
        > difference(b.x, a.x).saturating_mul(difference(c.t, a.t))
}
