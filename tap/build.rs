//! Compiles the BPF programs with clang into the object that the crate carries.

use std::path::Path;
use std::process::Command;
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=bpf");
    let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    let object = Path::new(&out).join("tap.bpf.o");
    let arch = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets CARGO_CFG_TARGET_ARCH");
    let clang = env::var("CLANG").unwrap_or_else(|_| "clang".into());
    let mut cmd = Command::new(&clang);
    cmd.args([
        "-g",
        "-O2",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-Wno-unused-parameter",
        "-target",
        "bpf",
        "-mcpu=v3",
    ]);
    if arch == "x86_64" {
        // total store order: no barriers where only order matters
        cmd.arg("-DCM_TSO");
    }
    // Debian keeps <asm/types.h> in a folder of its own for each architecture; elsewhere it is missing and ignored.
    cmd.arg(format!("-I/usr/include/{arch}-linux-gnu"));
    cmd.args(["-c", "bpf/tap.bpf.c", "-o"]).arg(&object);
    match cmd.status() {
        Ok(status) if status.success() => {}
        Ok(status) => panic!("{clang} could not compile bpf/tap.bpf.c ({status})"),
        Err(e) => panic!(
            "the BPF programs need clang with the bpf target, and linux/bpf.h: `apt-get install clang llvm linux-libc-dev` (running {clang}: {e})"
        ),
    }
    // Debug sections are of no use to the loader; BTF stays.
    let strip = env::var("LLVM_STRIP").unwrap_or_else(|_| "llvm-strip".into());
    match Command::new(&strip).arg("-g").arg(&object).status() {
        Ok(status) if status.success() => {}
        other => println!(
            "cargo::warning={strip} -g did not run ({other:?}); the executable is larger than it needs to be"
        ),
    }
    let size = fs::metadata(&object).map(|m| m.len()).unwrap_or(0);
    assert!(size > 0, "clang wrote no object");
}
