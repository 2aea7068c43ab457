//! `conmonctl ca`: a small certificate authority in a folder. It needs no network, no daemon and, outside of /etc, no
//! root. Nothing that is there is written over unless `--force` says so; keys and tokens are for their owner alone.
//!
//! ```text
//! DIR/ca.crt  ca.key                              the CA; its key stays here
//! DIR/hosts/NAME/ca.crt  host.crt  host.key       what a host needs, as it lies in /etc/conmon/tls there
//! DIR/operators/NAME/ca.crt  operator.crt  …key   what a person needs, as it lies in ~/.config/conmon there
//! DIR/tokens                                      hashes of tenants' tokens, for each host
//! ```

mod files;
mod show;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::bail;
use conmon::ca::{Ca, Pair, Validity};
use conmon::tls::{Role, check_name, facts};
use conmon::token;
use jiff::Timestamp;

use crate::args::{CaCommand, CaOptions};
use crate::output::{print_lines, print_notes};
use crate::tone::Color;
use files::{Folder, Secrecy};

/// Does what was asked.
pub fn run(options: &CaOptions, color: Color) -> anyhow::Result<ExitCode> {
    let dir = Folder::new(&options.dir);
    let now = Timestamp::now();
    match &options.command {
        CaCommand::Init { name, days, force } => init(&dir, name, Validity::days(now, *days)?, *force)?,
        CaCommand::Host { name, address, days, force } => {
            let role = Role::Host(name.clone());
            let addresses = match (&address[..], force) {
                // a new certificate in place of one: for the same addresses
                ([], true) => addresses_before(&dir, &role),
                (given, _) => given.to_vec(),
            };
            sign(&dir, &role, &addresses, Validity::days(now, *days)?, *force)?;
        }
        CaCommand::Operator { name, days, force } => {
            sign(&dir, &Role::Operator(name.clone()), &[], Validity::days(now, *days)?, *force)?;
        }
        CaCommand::TenantToken { tenant } => tenant_token(&dir, tenant)?,
        CaCommand::Show { files, print } => show::run(&dir, files, print, color, now)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn init(dir: &Folder, name: &str, validity: Validity, force: bool) -> anyhow::Result<()> {
    if !force && (dir.has("ca.key") || dir.has("ca.crt")) {
        bail!(
            "there is a CA in {} already. A new one makes every certificate worthless that this one has signed; \
             --force puts a new one in its place",
            dir.path().display()
        );
    }
    let pair = Ca::make(name, validity)?;
    dir.make()?;
    dir.write("ca.key", &pair.key, Secrecy::Secret, force)?;
    dir.write("ca.crt", &pair.certificate, Secrecy::Public, force)?;
    print_lines(&format!("{}\n", dir.path().join("ca.crt").display()))?;
    print_notes(&[
        format!("The CA is there, until {}.", day(validity)),
        format!(
            "Keep {} to yourself: whoever has it can be any host and any operator.",
            dir.path().join("ca.key").display()
        ),
        "Next: `conmonctl ca host NAME --address ADDRESS` for each host, `conmonctl ca operator NAME` for yourself."
            .to_owned(),
    ]);
    Ok(())
}

/// The folder of what a role needs, and what its files begin with.
fn place(role: &Role) -> (PathBuf, &'static str) {
    match role {
        Role::Host(name) => (Path::new("hosts").join(name), "host"),
        Role::Operator(name) => (Path::new("operators").join(name), "operator"),
    }
}

fn sign(
    dir: &Folder,
    role: &Role,
    addresses: &[String],
    validity: Validity,
    force: bool,
) -> anyhow::Result<()> {
    let (Role::Host(name) | Role::Operator(name)) = role;
    check_name(name)?;
    let ca = open(dir)?;
    let (place, file) = place(role);
    let place = dir.folder(&place);
    let (certificate, key) = (format!("{file}.crt"), format!("{file}.key"));
    if !force && (place.has(&certificate) || place.has(&key)) {
        bail!(
            "{role} has a certificate already, in {}; --force puts a new one in its place",
            place.path().display()
        );
    }
    let pair = Ca::open(&ca)?.sign(role, addresses, validity)?;
    place.make()?;
    place.write(&key, &pair.key, Secrecy::Secret, force)?;
    place.write(&certificate, &pair.certificate, Secrecy::Public, force)?;
    place.write("ca.crt", &ca.certificate, Secrecy::Public, true)?;
    print_lines(&format!("{}\n", place.path().display()))?;
    let (whose, where_to) = match role {
        Role::Host(name) => (
            format!("host {name}"),
            "to /etc/conmon/tls on that host, for root alone, and set `listen` in conmond.yaml there",
        ),
        Role::Operator(_) => (
            role.to_string(),
            "to ~/.config/conmon of that person; then `conmonctl --host https://HOST pairs`",
        ),
    };
    print_notes(&[
        format!("Key and certificate of {whose} are there, until {}.", day(validity)),
        format!("Copy the files in {} {where_to}.", place.path().display()),
    ]);
    Ok(())
}

/// The CA's own pair.
fn open(dir: &Folder) -> anyhow::Result<Pair> {
    if !dir.has("ca.key") || !dir.has("ca.crt") {
        bail!(
            "there is no CA in {}: make one with `conmonctl ca init`, or say where it is (--dir)",
            dir.path().display()
        );
    }
    Ok(Pair { certificate: dir.read("ca.crt")?, key: dir.read("ca.key")? })
}

fn addresses_before(dir: &Folder, role: &Role) -> Vec<String> {
    let (place, file) = place(role);
    let certificate = dir.folder(&place).path().join(format!("{file}.crt"));
    show::certificates(&certificate)
        .ok()
        .and_then(|all| facts(all.first()?).ok())
        .map(|facts| facts.names)
        .unwrap_or_default()
}

fn tenant_token(dir: &Folder, tenant: &str) -> anyhow::Result<()> {
    let token = token::make(tenant)?;
    dir.make()?;
    dir.append("tokens", &token.line)?;
    let tokens = dir.path().join("tokens");
    print_lines(&format!("{}\n", token.secret))?;
    print_notes(&[
        format!(
            "This is the token of tenant {tenant}. It is shown once: {} has its hash only.",
            tokens.display()
        ),
        format!(
            "Copy {} to /etc/conmon/tls/tokens on each host, and set `tls.tokens` in conmond.yaml there.",
            tokens.display()
        ),
        "A tenant's older tokens stay good until their lines are removed there.".to_owned(),
    ]);
    Ok(())
}

fn day(validity: Validity) -> String {
    validity.until.to_string().split('T').next().map(str::to_owned).unwrap_or_default()
}
