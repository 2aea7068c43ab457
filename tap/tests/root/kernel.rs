//! What the running kernel has, for the tests of what not every served kernel has. Decided by the kernel's version and not by
//! the tap's own finding: that would hide a finding that is wrong.

use tap::Attach;

/// Linux 6.6 brought TCX.
const TCX: (u32, u32) = (6, 6);

fn release() -> String {
    nix::sys::utsname::uname().unwrap().release().to_string_lossy().into_owned()
}

/// Major and minor number.
fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|n| n.parse().ok());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// Whether the kernel is one with TCX.
pub fn has_tcx() -> bool {
    version(&release()) >= TCX
}

/// Whether the kernel is one with TCX; says what is left out where it is not.
pub fn has_tcx_for(test: &str) -> bool {
    let has = has_tcx();
    if !has {
        let why = format!("this kernel, Linux {}, has none; Linux 6.6 brought it", release());
        lab::skipped(&format!("TCX in {test}"), &why);
    }
    has
}

/// Every way to attach that the kernel is to have. There is always one.
pub fn ways(test: &str) -> Vec<Attach> {
    if has_tcx_for(test) { vec![Attach::Tcx, Attach::Clsact] } else { vec![Attach::Clsact] }
}

#[test]
fn a_release_has_a_version() {
    assert_eq!(version("6.1.0-56-amd64"), (6, 1));
    assert_eq!(version("5.15.0"), (5, 15));
    assert_eq!(version("6.12.117+deb12-amd64"), (6, 12));
    assert_eq!(version("6.18-rc1"), (6, 18));
}
