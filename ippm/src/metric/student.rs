//! Student's distribution, for means of few values.

/// The quantile for a two-sided interval of 95 % with so many degrees of freedom; infinite with none.
pub fn t95(degrees: u64) -> f64 {
    const SMALL: [f64; 8] = [12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060];
    match degrees {
        0 => f64::INFINITY,
        1..=8 => SMALL[degrees as usize - 1],
        _ => {
            // The expansion in 1/n around the normal quantile (Abramowitz and Stegun 26.7.5).
            let (z, n) = (super::proportion::Z95, degrees as f64);
            let (z3, z5, z7) = (z.powi(3), z.powi(5), z.powi(7));
            z + (z3 + z) / (4.0 * n)
                + (5.0 * z5 + 16.0 * z3 + 3.0 * z) / (96.0 * n * n)
                + (3.0 * z7 + 19.0 * z5 + 17.0 * z3 - 15.0 * z) / (384.0 * n.powi(3))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_tables() {
        for (degrees, quantile) in
            [(1, 12.7062), (8, 2.3060), (9, 2.2622), (12, 2.1788), (30, 2.0423), (120, 1.9799)]
        {
            assert!((t95(degrees) - quantile).abs() < 5e-4, "{degrees}: {}", t95(degrees));
        }
        assert_eq!(t95(0), f64::INFINITY);
    }
}
