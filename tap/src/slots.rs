//! What is known of the slots of a table that are in use, without room for those that are not.

/// Values by slot number.
#[derive(Debug)]
pub(crate) struct Slots<T> {
    /// Place in `taken` and one more; 0 for a free slot.
    index: Vec<u32>,
    taken: Vec<(u32, T)>,
}

impl<T> Slots<T> {
    /// For a table of `slots`, all free.
    pub(crate) fn new(slots: u32) -> Self {
        Self { index: vec![0; slots as usize], taken: Vec::new() }
    }

    fn place(&self, slot: u32) -> Option<usize> {
        self.index.get(slot as usize)?.checked_sub(1).map(|at| at as usize)
    }

    pub(crate) fn get(&self, slot: u32) -> Option<&T> {
        self.taken.get(self.place(slot)?).map(|(_, value)| value)
    }

    /// Puts a value in the place of what is there. A slot that the table does not have takes none.
    pub(crate) fn set(&mut self, slot: u32, value: T) {
        if let Some((_, known)) = self.place(slot).and_then(|at| self.taken.get_mut(at)) {
            *known = value;
        } else if let Some(index) = self.index.get_mut(slot as usize) {
            self.taken.push((slot, value));
            *index = self.taken.len() as u32;
        }
    }

    pub(crate) fn clear(&mut self, slot: u32) {
        let Some(at) = self.place(slot).filter(|at| *at < self.taken.len()) else { return };
        self.taken.swap_remove(at);
        self.index[slot as usize] = 0;
        if let Some((moved, _)) = self.taken.get(at) {
            self.index[*moved as usize] = at as u32 + 1;
        }
        // after a storm the room it took is given back
        if self.taken.len() < self.taken.capacity() / 4 && self.taken.capacity() > 4096 {
            self.taken.shrink_to(self.taken.len() * 2);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.taken.len()
    }

    /// The slots in use, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.taken.iter().map(|(slot, value)| (*slot, value))
    }

    /// As `iter`, by place: for who goes on where it stopped.
    pub(crate) fn at_mut(&mut self, place: usize) -> Option<(u32, &mut T)> {
        self.taken.get_mut(place).map(|(slot, value)| (*slot, value))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::Slots;

    #[test]
    fn behaves_as_a_map_does() {
        let (mut slots, mut model) = (Slots::new(64), BTreeMap::new());
        // any order of many small steps will do: a linear congruential generator (Knuth, TAOCP 3.3.4)
        let mut random = 1u64;
        for step in 0..20_000u64 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let slot = (random >> 33) as u32 % 64;
            if random >> 63 == 0 {
                slots.set(slot, step);
                model.insert(slot, step);
            } else {
                slots.clear(slot);
                model.remove(&slot);
            }
            assert_eq!(slots.get(slot), model.get(&slot));
            assert_eq!(slots.len(), model.len());
        }
        let all: BTreeMap<u32, u64> = slots.iter().map(|(slot, v)| (slot, *v)).collect();
        assert_eq!(all, model);
    }

    #[test]
    fn a_slot_that_the_table_does_not_have_takes_nothing() {
        let mut slots = Slots::new(4);
        slots.set(4, ());
        slots.clear(9);
        assert_eq!((slots.len(), slots.get(4)), (0, None));
    }

    #[test]
    fn room_is_given_back() {
        let mut slots = Slots::new(1 << 16);
        for slot in 0..1 << 16 {
            slots.set(slot, slot);
        }
        for slot in 0..(1 << 16) - 8 {
            slots.clear(slot);
        }
        assert_eq!(slots.len(), 8);
        assert!(slots.taken.capacity() <= 4096, "{}", slots.taken.capacity());
    }
}
