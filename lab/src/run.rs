//! Running other programs and saying clearly what went wrong.

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Runs a command to its end and returns what it wrote to stdout. A failure carries the command line and its stderr.
pub fn output(command: &mut Command) -> Result<Vec<u8>> {
    let line = describe(command);
    let out = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run `{line}`"))?;
    if !out.status.success() {
        bail!("`{line}` failed ({}): {}", out.status, text(&out.stderr));
    }
    Ok(out.stdout)
}

/// As [`output`], as text without the white space around it.
pub fn output_text(command: &mut Command) -> Result<String> {
    Ok(text(&output(command)?))
}

/// Bytes as text without the white space around them.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_string()
}

/// A command's line, for messages.
pub fn describe(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args() {
        line.push(' ');
        line.push_str(&arg.to_string_lossy());
    }
    line
}

/// Folders looked into besides `PATH`: root's programs are often missing from a user's `PATH`.
const MORE_FOLDERS: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];

/// Finds a program by name; the error says which Debian package brings it.
pub fn find_program(name: &str, package: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(MORE_FOLDERS.iter().map(PathBuf::from));
    folders.map(|folder| folder.join(name)).find(|file| is_executable(file)).with_context(|| {
        format!("{name} is not installed: run scripts/setup.sh, or `apt-get install {package}`")
    })
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_carry_the_command_and_its_words() {
        let error =
            output(Command::new("sh").args(["-c", "echo gone wrong >&2; exit 3"])).unwrap_err().to_string();
        assert!(error.contains("sh -c") && error.contains("gone wrong") && error.contains('3'), "{error}");
        assert_eq!(output_text(Command::new("echo").arg(" hello ")).ok().as_deref(), Some("hello"));
    }

    #[test]
    fn a_missing_program_names_its_package() {
        assert!(find_program("sh", "dash").is_ok());
        let error = find_program("no-such-program", "no-such-package").unwrap_err().to_string();
        assert!(error.contains("apt-get install no-such-package"), "{error}");
    }
}
