//! What the CA has made, or what stands in some certificates: who they are for, by whom, until when.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use conmon::tls::{Facts, Role, facts, read_text};
use conmon::token::Tokens;
use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::Serialize;

use super::files::Folder;
use crate::args::Print;
use crate::look::Look;
use crate::output::print;
use crate::table::{Cell, Table, left, right, toned};
use crate::tone::{Color, Tone};
use crate::view::View;

/// A certificate that ends sooner should be replaced now, days.
const SOON_DAYS: i64 = 30;

#[derive(Debug, Serialize)]
struct Answer {
    generated_at: Timestamp,
    certificates: Vec<Certificate>,
    /// How many tokens each tenant has.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    tokens: BTreeMap<String, usize>,
}

#[derive(Debug, Serialize)]
struct Certificate {
    file: PathBuf,
    /// `ca`, `host`, `operator`; absent where it gives no role.
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    name: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    addresses: Vec<String>,
    issuer: String,
    not_before: Timestamp,
    not_after: Timestamp,
    /// Negative after the end.
    days_left: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

pub fn run(
    dir: &Folder,
    files: &[PathBuf],
    options: &Print,
    color: Color,
    now: Timestamp,
) -> anyhow::Result<()> {
    let listed = if files.is_empty() { of_folder(dir)? } else { files.to_vec() };
    let mut all = Vec::new();
    for file in &listed {
        for certificate in certificates(file)? {
            let facts = facts(&certificate).with_context(|| file.display().to_string())?;
            all.push(certificate_of(file, facts, now));
        }
    }
    let mut tokens = BTreeMap::new();
    let token_file = dir.path().join("tokens");
    if files.is_empty() && token_file.exists() {
        let known = Tokens::read(&token_file)?;
        tokens = known.counts().into_iter().map(|(tenant, count)| (tenant.to_string(), count)).collect();
    }
    let answer = Answer { generated_at: now, certificates: all, tokens };
    print(options, color, &answer, view)
}

/// The certificates of a file, DER.
pub fn certificates(file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let text = read_text("certificate", file)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    let all = all.with_context(|| format!("cannot read {}", file.display()))?;
    if all.is_empty() {
        bail!("{} holds no certificate (PEM)", file.display());
    }
    Ok(all)
}

fn of_folder(dir: &Folder) -> anyhow::Result<Vec<PathBuf>> {
    let ca = dir.path().join("ca.crt");
    if !dir.has("ca.crt") {
        bail!(
            "there is no CA in {}: make one with `conmonctl ca init`, say where it is (--dir), or name the files to look at",
            dir.path().display()
        );
    }
    let mut all = vec![ca];
    for (folder, file) in [("hosts", "host.crt"), ("operators", "operator.crt")] {
        let folder = dir.path().join(folder);
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => {
                return Err(error).with_context(|| format!("cannot look into {}", folder.display()));
            }
        };
        let mut found: Vec<PathBuf> =
            entries.flatten().map(|entry| entry.path().join(file)).filter(|path| path.is_file()).collect();
        found.sort();
        all.extend(found);
    }
    Ok(all)
}

fn certificate_of(file: &Path, facts: Facts, now: Timestamp) -> Certificate {
    let days_left = facts.not_after.duration_since(now).as_secs().div_euclid(86_400);
    let (role, name) = match (&facts.role, facts.is_ca) {
        (_, true) => (Some("ca"), facts.subject.clone()),
        (Ok(Role::Host(name)), _) => (Some("host"), name.clone()),
        (Ok(Role::Operator(name)), _) => (Some("operator"), name.clone()),
        (Err(_), _) => (None, facts.subject.clone()),
    };
    let problem = if now < facts.not_before {
        Some(format!("not valid before {}", facts.not_before))
    } else if now > facts.not_after {
        Some("has expired".to_owned())
    } else if days_left < SOON_DAYS {
        Some("ends soon".to_owned())
    } else if !facts.is_ca {
        facts.role.as_ref().err().map(ToString::to_string)
    } else {
        None
    };
    let addresses = facts.names.into_iter().filter(|address| *address != name).collect();
    Certificate {
        file: file.to_owned(),
        role,
        name,
        addresses,
        issuer: facts.issuer,
        not_before: facts.not_before,
        not_after: facts.not_after,
        days_left,
        problem,
    }
}

fn view(answer: &Answer, look: Look) -> View {
    let mut columns = vec![
        left("ROLE"),
        left("NAME").name(),
        left("ADDRESSES").keep(100),
        left("UNTIL").keep(120),
        right("DAYS LEFT"),
        left("PROBLEM"),
    ];
    if look.wide {
        columns.extend([left("SIGNED BY"), left("FILE")]);
    }
    let mut table = Table::new(columns);
    for one in &answer.certificates {
        let until = one.not_after.to_string();
        let problem: Cell = match &one.problem {
            None => "-".into(),
            Some(problem) => toned(Tone::Bad, problem.clone()),
        };
        let mut cells: Vec<Cell> = vec![
            one.role.unwrap_or("-").into(),
            one.name.clone().into(),
            if one.addresses.is_empty() { "-".into() } else { one.addresses.join(",").into() },
            until.split('T').next().unwrap_or(&until).into(),
            one.days_left.to_string().into(),
            problem,
        ];
        if look.wide {
            cells.extend([one.issuer.clone().into(), one.file.display().to_string().into()]);
        }
        table.row(cells);
    }
    let notes = answer
        .tokens
        .iter()
        .map(|(tenant, count)| match count {
            1 => format!("tenant {tenant} has a token"),
            count => format!("tenant {tenant} has {count} tokens"),
        })
        .collect();
    View { text: table.render(look), notes }
}
