//! The monitoring image: our own static executable in an otherwise empty file system.
//!
//! No registry, no pull, no difference in version between controller and monitor. The image's tag is the
//! executable's digest, so the same build is imported once.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use bollard::body_full;
use bollard::models::ImageSummary;
use bollard::query_parameters::{CreateImageOptionsBuilder, RemoveImageOptionsBuilder};
use futures_util::TryStreamExt;
use sha2::{Digest, Sha256};

use super::{ACT, ASK, Docker, answer, filters, present, status_code};
use crate::runtime::{
    EngineKind, LABEL_INSTANCE, LABEL_ROLE, MONITOR_RUN_DIR, MONITOR_UID, MonitorImage, ROLE_MONITOR,
    RuntimeError,
};

/// Label with the executable's whole SHA-256 digest.
const LABEL_EXECUTABLE: &str = "conmon.executable";
const IMPORT: &str = "import the monitoring image";
/// Digits of the digest in the tag.
const TAG_DIGITS: usize = 12;
/// Where the executable lies in the image.
pub(super) const EXECUTABLE: &str = "/conmond";
/// The role of the executable in the image.
pub(super) const ROLE_ARGUMENT: &str = "monitor";

/// What became of images that were to be removed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ImagesRemoved {
    pub(super) removed: usize,
    /// Containers were made of them and are still there.
    pub(super) needed: usize,
}

impl Docker {
    /// Makes the monitoring image unless it is there, and removes those of other builds, as far as no container needs them.
    pub async fn ensure_image(&self, executable: &Path) -> Result<MonitorImage, RuntimeError> {
        let path = executable.to_owned();
        let bytes = blocking(move || read_static(&path)).await?;
        let (bytes, digest) = blocking(move || {
            let digest = hex(&Sha256::digest(&bytes));
            (bytes, digest)
        })
        .await;
        let repository = self.image_repository();
        let tag = format!("{repository}:{}", digest.get(..TAG_DIGITS).unwrap_or(&digest));
        let (id, reused) = match self.image_with(&tag, &digest).await? {
            Some(id) => (id, true),
            None => (self.import(&tag, &digest, bytes).await?, false),
        };
        let others = self.remove_images(Some(&tag)).await?.needed;
        Ok(MonitorImage { id, tag, reused, others })
    }

    /// Removes this instance's images except the one with this tag. Those that a container still needs stay; tells how
    /// many.
    pub async fn remove_other_images(&self, keep: &str) -> Result<usize, RuntimeError> {
        Ok(self.remove_images(Some(keep)).await?.needed)
    }

    pub(super) async fn remove_images(&self, keep: Option<&str>) -> Result<ImagesRemoved, RuntimeError> {
        let client = self.client().await?;
        // one label: Podman 4 finds no image by two
        let labels = vec![format!("{LABEL_INSTANCE}={}", self.instance())];
        let path = format!("/images/json?{}", filters("label", labels));
        let images = self.list("list images", &path, |image: &ImageSummary| !image.id.is_empty()).await?;
        let repository = self.image_repository();
        let mut count = ImagesRemoved::default();
        for tag in images.iter().flat_map(|image| &image.repo_tags).map(|tag| short_name(tag)) {
            // the labels alone do not make it ours: a copy under another name is somebody else's
            let version = tag.strip_prefix(&repository).and_then(|rest| rest.strip_prefix(':'));
            let ours = version.is_some_and(answer::is_id);
            if keep == Some(tag) || !ours {
                continue;
            }
            let options = RemoveImageOptionsBuilder::new().build();
            match self.within("remove an image", ACT, client.remove_image(tag, Some(options), None)).await {
                Ok(_) => count.removed += 1,
                // Somebody was faster.
                Err(error) if status_code(&error) == Some(404) => {}
                // A container was made from it and still is there.
                Err(error) if status_code(&error) == Some(409) => count.needed += 1,
                Err(error) => return Err(error),
            }
        }
        Ok(count)
    }

    fn image_repository(&self) -> String {
        format!("conmon-monitor-{}", self.instance())
    }

    /// The identifier of the image with this tag, if it holds the executable with this digest.
    async fn image_with(&self, tag: &str, digest: &str) -> Result<Option<String>, RuntimeError> {
        let client = self.client().await?;
        let found = present(self.within("inspect an image", ASK, client.inspect_image(tag)).await)?;
        Ok(found.and_then(|image| {
            let labels = image.config?.labels?;
            (labels.get(LABEL_EXECUTABLE)? == digest).then_some(image.id?)
        }))
    }

    async fn import(&self, tag: &str, digest: &str, executable: Vec<u8>) -> Result<String, RuntimeError> {
        let refused = |source| RuntimeError::ImportRefused { tag: tag.to_owned(), source };
        let archive = blocking(move || root_file_system(&executable))
            .await
            .map_err(|error| refused(Box::new(error.into())))?;
        let changes = vec![
            format!("ENTRYPOINT [\"{EXECUTABLE}\", \"{ROLE_ARGUMENT}\"]"),
            format!("USER {MONITOR_UID}:{MONITOR_UID}"),
            "WORKDIR /".to_owned(),
            // one a line: Podman takes a line for one label
            format!("LABEL {LABEL_INSTANCE}={}", self.instance()),
            format!("LABEL {LABEL_ROLE}={ROLE_MONITOR}"),
            format!("LABEL {LABEL_EXECUTABLE}={digest}"),
        ];
        let (client, kind) = self.client_and_kind().await?;
        let imported = match kind {
            EngineKind::Podman => self.podman_import(IMPORT, tag, &changes, archive).await,
            EngineKind::Docker => {
                let (repository, version) = tag.split_once(':').unwrap_or((tag, "latest"));
                let options = CreateImageOptionsBuilder::new()
                    .from_src("-")
                    .repo(repository)
                    .tag(version)
                    .message("ConMon monitoring container")
                    .changes(changes)
                    .build();
                let progress = client.create_image(Some(options), Some(body_full(archive.into())), None);
                self.within(IMPORT, ACT, progress.try_collect::<Vec<_>>()).await.map(drop)
            }
        };
        match imported {
            Ok(()) => {}
            Err(RuntimeError::Call { source, .. }) => return Err(refused(source)),
            Err(error) => return Err(error),
        }
        self.image_with(tag, digest).await?.ok_or_else(|| {
            let error = "the image is not there after its import".to_owned();
            refused(Box::new(bollard::errors::Error::DockerStreamError { error }))
        })
    }
}

/// An image's name without what Podman puts before names that have no registry.
fn short_name(tag: &str) -> &str {
    ["docker.io/library/", "localhost/"].iter().find_map(|prefix| tag.strip_prefix(prefix)).unwrap_or(tag)
}

/// Runs what computes or reads files for long beside the tasks.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        // Nobody cancels these tasks, so it can only have panicked.
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

fn read_static(path: &Path) -> Result<Vec<u8>, RuntimeError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|mut file| file.read_to_end(&mut bytes))
        .map_err(|source| RuntimeError::ReadExecutable { path: path.to_owned(), source })?;
    if is_static(&bytes) { Ok(bytes) } else { Err(RuntimeError::NotStatic { path: path.to_owned() }) }
}

/// Whether an ELF executable asks for no interpreter (dynamic linker). Only the 64-bit kind of our own byte order runs
/// on the machines that we are built for.
fn is_static(elf: &[u8]) -> bool {
    const PT_INTERP: u32 = 3;
    let u16_at = |at: usize| Some(u16::from_ne_bytes(elf.get(at..at.checked_add(2)?)?.try_into().ok()?));
    let u32_at = |at: usize| Some(u32::from_ne_bytes(elf.get(at..at.checked_add(4)?)?.try_into().ok()?));
    let u64_at = |at: usize| Some(u64::from_ne_bytes(elf.get(at..at.checked_add(8)?)?.try_into().ok()?));
    let interpreted = || {
        let table = usize::try_from(u64_at(32)?).ok()?;
        let (size, count) = (usize::from(u16_at(54)?), usize::from(u16_at(56)?));
        for index in 0..count {
            if u32_at(table.checked_add(index * size)?)? == PT_INTERP {
                return Some(true);
            }
        }
        Some(count == 0)
    };
    elf.starts_with(b"\x7fELF\x02") && interpreted() == Some(false)
}

/// The image's content as a tar archive: the executable, and the folders that something is mounted on.
fn root_file_system(executable: &[u8]) -> io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::with_capacity(executable.len() + 16 * 1024));
    let run_dir = MONITOR_RUN_DIR.trim_start_matches('/');
    for dir in ["run", run_dir, "tmp"] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(0o755);
        header.set_size(0);
        archive.append_data(&mut header, format!("{dir}/"), io::empty())?;
    }
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o755);
    header.set_size(executable.len() as u64);
    archive.append_data(&mut header, EXECUTABLE.trim_start_matches('/'), executable)?;
    archive.into_inner()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF header with program headers of the given types behind it.
    fn elf(types: &[u32]) -> Vec<u8> {
        let mut bytes = vec![0; 64];
        bytes[..5].copy_from_slice(b"\x7fELF\x02");
        bytes[32..40].copy_from_slice(&64u64.to_ne_bytes());
        bytes[54..56].copy_from_slice(&56u16.to_ne_bytes());
        bytes[56..58].copy_from_slice(&(types.len() as u16).to_ne_bytes());
        for kind in types {
            bytes.extend(kind.to_ne_bytes());
            bytes.extend([0; 52]);
        }
        bytes
    }

    #[test]
    fn an_interpreter_makes_it_dynamic() {
        assert!(is_static(&elf(&[1, 1, 2])), "static-pie has PT_DYNAMIC and no PT_INTERP");
        assert!(!is_static(&elf(&[6, 3, 1])));
        assert!(!is_static(&elf(&[])), "nothing to load");
        assert!(!is_static(b"#!/bin/sh\n"));
        let mut cut = elf(&[1, 1]);
        cut.truncate(70);
        cut[32..40].copy_from_slice(&u64::MAX.to_ne_bytes());
        assert!(!is_static(&cut), "headers outside the file");
    }

    #[test]
    fn this_test_is_static_as_every_build_here() {
        let me = std::fs::read("/proc/self/exe").unwrap();
        assert!(is_static(&me));
    }

    #[test]
    fn the_archive_holds_the_executable_and_the_mount_points() {
        let bytes = root_file_system(b"program").unwrap();
        let mut archive = tar::Archive::new(&bytes[..]);
        let mut entries = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut content = String::new();
            entry.read_to_string(&mut content).unwrap();
            let path = entry.path().unwrap().to_string_lossy().into_owned();
            entries.push((path, entry.header().mode().unwrap(), content));
        }
        let want = [("run/", ""), ("run/conmon/", ""), ("tmp/", ""), ("conmond", "program")];
        let want: Vec<_> = want.iter().map(|(p, c)| (p.to_string(), 0o755, c.to_string())).collect();
        assert_eq!(entries, want);
        assert_eq!(root_file_system(b"program").unwrap(), bytes, "the same each time");
    }

    #[test]
    fn digests_are_lower_case_hex() {
        assert_eq!(
            hex(&Sha256::digest(b"abc")),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
