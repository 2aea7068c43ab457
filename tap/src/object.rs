//! The compiled programs: parsed, pointed at a set's maps, loaded.

use std::collections::HashSet;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use aya_obj::{Object, maps::Map};

use crate::error::Error;
use crate::sys;

/// ELF headers are read in place: they must be aligned.
#[repr(C, align(32))]
struct Aligned<T: ?Sized>(T);

static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/tap.bpf.o")));

/// The object that `build.rs` made.
pub(crate) static BYTES: &[u8] = &OBJECT.0;

/// Loads the programs called `names` with every map reference replaced by the descriptor `maps` gives for its name.
pub(crate) fn load(names: &[&'static str], maps: &[(&str, BorrowedFd<'_>)]) -> Result<Vec<OwnedFd>, Error> {
    let damaged = |e: &dyn std::fmt::Display| Error::Object(e.to_string());
    let mut object = Object::parse(BYTES).map_err(|e| damaged(&e))?;
    let text: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
    let definitions: Vec<(String, Map)> = object.maps.drain().collect();
    let mut wired = Vec::with_capacity(definitions.len());
    for (name, map) in &definitions {
        let fd = maps
            .iter()
            .find(|(n, _)| n == name)
            .ok_or_else(|| Error::Object(format!("map `{name}` is not known to the loader")))?;
        wired.push((name.as_str(), fd.1.as_raw_fd(), map));
    }
    object.relocate_maps(wired.into_iter(), &text).map_err(|e| damaged(&e))?;
    object.relocate_calls(&text).map_err(|e| damaged(&e))?;

    names
        .iter()
        .map(|name| {
            let program =
                object.programs.get(*name).ok_or_else(|| Error::Object(format!("no program `{name}`")))?;
            let function = object
                .functions
                .get(&program.function_key())
                .ok_or_else(|| Error::Object(format!("no code for `{name}`")))?;
            sys::prog_load(name, &function.instructions)
                .map_err(|source| Error::Program { name: (*name).to_owned(), source })
        })
        .collect()
}
