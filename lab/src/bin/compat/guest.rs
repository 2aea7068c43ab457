//! The emulated machine's file system: busybox, the programs that the tests run, an engine, our executables.

use crate::kernel::Kernel;
use crate::suite::Suite;
use anyhow::{Context, Result};
use lab::{Layer, find_program, output_text};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Programs that busybox has none of, or others than the tests need, with their Debian packages.
const PROGRAMS: [(&str, &str); 12] = [
    ("ip", "iproute2"),
    ("tc", "iproute2"),
    ("nsenter", "util-linux"),
    ("sysctl", "procps"),
    ("ping", "iputils-ping"),
    // `ldd`, by which the lab finds libraries, is a script
    ("bash", "bash"),
    ("ldd", "libc-bin"),
    ("dockerd", "docker.io"),
    ("docker", "docker.io"),
    ("containerd", "containerd"),
    ("containerd-shim-runc-v2", "containerd"),
    ("runc", "runc"),
];

/// Writes the file system.
pub fn pack(kernel: &Kernel, suite: &Suite, to: &Path) -> Result<()> {
    let mut layer = Layer::default();
    for folder in ["/proc", "/sys", "/dev", "/tmp", "/run", "/root"] {
        layer.folder(folder, 0o755, 0);
    }
    layer.symlink("/usr/bin", "../bin");
    layer.symlink("/usr/sbin", "../bin");
    layer.symlink("/sbin", "bin");
    // static: it is there whatever else is missing
    let busybox = find_program("busybox", "busybox-static")?;
    for applet in output_text(Command::new(&busybox).arg("--list"))?.split_whitespace() {
        layer.symlink(&format!("/bin/{applet}"), "busybox");
    }
    // one of its own applets is itself
    layer.executable("/bin/busybox", &busybox)?;
    for (name, package) in PROGRAMS {
        layer.executable(&format!("/bin/{name}"), &find_program(name, package)?)?;
    }
    iptables(&mut layer)?;
    layer.file("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n");
    layer.file("/etc/group", "root:x:0:\nnogroup:x:65534:\n");
    for (path, file) in &suite.executables {
        layer.executable(path, file)?;
    }
    for (path, target) in &suite.links {
        layer.symlink(path, target);
    }
    for module in &kernel.modules {
        let name = module.file_name().and_then(|n| n.to_str()).context("a module without a name")?;
        layer.file(&format!("/modules/{name}"), fs::read(module)?);
    }
    layer.script("/init", include_str!("init.sh"));
    layer.file("/conmond-alone", include_str!("conmond-alone.sh"));
    let mut steps = String::new();
    for step in &suite.steps {
        writeln!(steps, "step {} {} '{}'", step.name, step.limit_seconds, step.line)?;
    }
    layer.file("/steps", steps);
    let out = fs::File::create(to).with_context(|| format!("cannot write {}", to.display()))?;
    layer.write_cpio(std::io::BufWriter::new(out))
}

/// One program under two names, and its extensions, which it loads by itself.
fn iptables(layer: &mut Layer) -> Result<()> {
    let program = fs::canonicalize(find_program("iptables", "iptables")?)?;
    for name in ["iptables", "ip6tables"] {
        layer.executable(&format!("/bin/{name}"), &program)?;
    }
    let extensions = ["/usr/lib/x86_64-linux-gnu/xtables", "/usr/lib/xtables"];
    let folder = extensions.iter().find(|f| Path::new(f).is_dir());
    let folder = folder.context("the extensions of iptables are not at their place")?;
    layer.tree(folder, Path::new(folder), 0)
}
