//! The compiled programs: parsed, pointed at a set's maps, loaded.

use std::collections::HashSet;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use aya_obj::btf::BtfFeatures;
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
    // With type information the verifier takes each function that is not static by itself, once. A kernel that does
    // not want ours verifies them where they are called, as it verifies static ones.
    let plain = BtfFeatures::new(true, true, true, false, true, false, false, false);
    let btf = match object.fixup_and_sanitize_btf(&plain) {
        Ok(Some(btf)) => sys::btf_load(&btf.to_bytes())
            .inspect_err(|error| tracing::debug!(%error, "the kernel takes no type information"))
            .ok(),
        Ok(None) => None,
        Err(e) => return Err(damaged(&e)),
    };
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
            let functions: Vec<[u32; 2]> =
                function.func_info.func_info.iter().map(|f| [f.insn_off, f.type_id]).collect();
            let types =
                btf.as_ref().filter(|_| !functions.is_empty()).map(|btf| (btf.as_fd(), &functions[..]));
            let load = |types| sys::prog_load(name, kind_of(name), &function.instructions, types);
            // an old verifier may want to know more of an argument than its type
            let loaded = if types.is_some() { load(types).or_else(|_| load(None)) } else { load(None) };
            loaded.map_err(|source| Error::Program { name: (*name).to_owned(), source })
        })
        .collect()
}

/// What kind of program one is, and what it may be attached to.
fn kind_of(name: &str) -> (u32, u32) {
    match name {
        "cm_group_tx" => (sys::PROG_TYPE_CGROUP_SKB, sys::CGROUP_EGRESS),
        "cm_group_rx" => (sys::PROG_TYPE_CGROUP_SKB, sys::CGROUP_INGRESS),
        // an attachment that is of no meaning to classifiers
        _ => (sys::PROG_TYPE_SCHED_CLS, 0),
    }
}
