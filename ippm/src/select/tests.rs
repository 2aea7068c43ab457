use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use proptest::prelude::*;

use super::digest::digest;
use super::*;
use crate::model::law::Delay;
use crate::model::packet::Ends;
use crate::model::path::Path;
use crate::model::random::Dice;
use crate::model::tcp::{Connection, run};
use crate::packet::{Class, Ip, parse};

fn parsed(frame: &[u8]) -> (Ip, &[u8]) {
    let Class::Ip(ip) = parse(frame).class else { panic!("the model sends IP") };
    let payload = ip.payload.expect("whole headers").of(frame);
    (ip, payload)
}

#[test]
fn each_input_bit_moves_each_output_bit_half_the_time() {
    let mut dice = Dice::new(1);
    let n = 2_000u32;
    for bit in 0..128 {
        let mut flips = [0u32; 64];
        for _ in 0..n {
            let words = [dice.bits(), dice.bits()];
            let mut other = words;
            other[bit / 64] ^= 1 << (bit % 64);
            let difference = digest(9, &words) ^ digest(9, &other);
            for (i, flip) in flips.iter_mut().enumerate() {
                *flip += (difference >> i & 1) as u32;
            }
        }
        // Six standard deviations: 8,192 comparisons, none may be beyond.
        let (half, six) = (n / 2, (6.0 * (f64::from(n) / 4.0).sqrt()) as u32);
        assert!(flips.iter().all(|flip| flip.abs_diff(half) < six), "bit {bit}: {flips:?}");
    }
}

#[test]
fn consecutive_inputs_are_spread_evenly() {
    let key = Key::new([1, 2]);
    let n = 1u64 << 18;
    let mut counts = [0f64; 256];
    for i in 0..n {
        counts[(key.digest(&[i, 0, 7]).select >> 56) as usize] += 1.0;
    }
    let mean = n as f64 / 256.0;
    let chi2: f64 = counts.iter().map(|c| (c - mean).powi(2) / mean).sum();
    // 255 degrees of freedom: mean 255, standard deviation 22.6.
    assert!((150.0..380.0).contains(&chi2), "{chi2}");
}

#[test]
fn selection_tells_nothing_about_names() {
    let key = Key::new([3, 4]);
    let level = Threshold::new(6);
    let selected: Vec<Digest> =
        (0..400_000u64).map(|i| key.digest(&[i])).filter(|d| level.takes(d.select)).collect();
    let share = selected.len() as f64 / 400_000.0;
    assert!((share - level.share()).abs() < 5.0 * (level.share() / 400_000.0).sqrt(), "{share}");
    let ones = selected.iter().filter(|d| d.name >> 63 == 1).count() as f64;
    let n = selected.len() as f64;
    assert!((ones - n / 2.0).abs() < 4.0 * n.sqrt() / 2.0);
    let other = Key::new([5, 6]);
    let both = (0..400_000u64)
        .filter(|i| level.takes(key.digest(&[*i]).select) && level.takes(other.digest(&[*i]).select))
        .count();
    assert!(both < 150, "another key selects others: {both}");
}

#[test]
fn secrets_are_not_shown() {
    assert_eq!(format!("{:?}", Key::new([12345, 6789])), "Key(..)");
}

#[test]
fn both_points_name_a_segment_the_same_also_behind_a_translator() {
    let path = Path::clean(Delay::Constant(100_000));
    let outcome = run(&Connection::over(path, path, 5));
    let key = Key::new([7, 8]);
    let hidden = Ends { client: (IpAddr::from([192, 0, 2, 9]), 61_000), ..Ends::default() };
    let names = |seen: &[crate::model::Captured], ends, tuple| -> HashSet<u64> {
        let frames: Vec<Vec<u8>> = seen.iter().map(|c| c.packet.frame(ends)).collect();
        frames
            .iter()
            .map(|frame| {
                let (ip, payload) = parsed(frame);
                signature(&key, &ip, payload, tuple).name
            })
            .collect()
    };
    let plain = names(&outcome.client, Ends::default(), Tuple::Same);
    assert_eq!(plain, names(&outcome.server, Ends::default(), Tuple::Same));
    assert!(plain.is_disjoint(&names(&outcome.server, hidden, Tuple::Same)));
    let without = names(&outcome.client, Ends::default(), Tuple::Translated);
    assert_eq!(without, names(&outcome.server, hidden, Tuple::Translated));
    assert_eq!(plain.len(), without.len());
}

#[test]
fn offload_moves_no_grid_point() {
    let path = Path::clean(Delay::Exponential { base: 50_000, mean: 10_000 }).losing(0.01);
    for shift in [6, 10, 14] {
        let law = Connection::over(path, path, 6).offloaded();
        let outcome = run(&law);
        let grid = Grid::new(0x1234_5678_9abc, shift);
        let points = |seen: &[crate::model::Captured]| -> HashMap<u32, u32> {
            let mut times = HashMap::new();
            for c in seen.iter().filter(|c| c.packet.forward) {
                if let crate::model::Transport::Tcp { seq, .. } = c.packet.transport {
                    for point in grid.covered(seq, c.packet.payload) {
                        *times.entry(point).or_insert(0) += 1;
                    }
                }
            }
            times
        };
        let (a, b) = (points(&outcome.client), points(&outcome.server));
        assert_eq!(a.len() as u64, b.len() as u64, "all data arrives in the end");
        assert!(a.keys().all(|point| b.contains_key(point)));
        assert!((a.len() as u64).abs_diff(law.forward_bytes >> shift) <= 1);
    }
}

proptest! {
    #[test]
    fn thresholds_nest(digest: u64, level in 0u8..=63) {
        let fine = Threshold::new(level);
        prop_assert!(!fine.coarser().takes(digest) || fine.takes(digest));
        prop_assert!(Threshold::ALL.takes(digest));
    }

    #[test]
    fn a_grid_covers_what_brute_force_finds(phase: u64, shift in 0u8..=12, seq: u32, length in 0u32..9_000) {
        let grid = Grid::new(phase, shift);
        let brute: Vec<u32> = (0..length)
            .map(|i| seq.wrapping_add(i))
            .filter(|at| at.wrapping_sub(phase as u32) & (grid.step() - 1) == 0)
            .collect();
        prop_assert_eq!(grid.covered(seq, length).collect::<Vec<_>>(), brute);
        let coarse: Vec<u32> = Grid::new(phase, shift + 3).covered(seq, length).collect();
        let fine: HashSet<u32> = grid.covered(seq, length).collect();
        prop_assert!(coarse.iter().all(|point| fine.contains(point)));
    }
}
