//! Reading a password: never from the command line, where everybody sees it.

use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use dragonfly_core::secret::SecretString;
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

/// The longest that is read from a file.
const LONGEST: u64 = 4096;

/// From a file, from standard input, or from a person at the terminal.
pub(super) fn read(file: Option<&Path>, username: &str) -> anyhow::Result<SecretString> {
    let text = match file {
        Some(path) if path == Path::new("-") => whole(io::stdin().lock()).context("standard input cannot be read")?,
        Some(path) => {
            let file = std::fs::File::open(path).with_context(|| format!("{} cannot be read", path.display()))?;
            whole(file).with_context(|| format!("{} cannot be read", path.display()))?
        }
        None => asked(username)?,
    };
    let password = text.strip_suffix('\n').unwrap_or(&text);
    let password = password.strip_suffix('\r').unwrap_or(password);
    ensure!(!password.is_empty(), "the password is empty");
    Ok(password.to_owned().into())
}

fn whole(from: impl io::Read) -> io::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    from.take(LONGEST).read_to_string(&mut text)?;
    Ok(text)
}

fn asked(username: &str) -> anyhow::Result<Zeroizing<String>> {
    if !io::stdin().is_terminal() {
        bail!("nobody can be asked for the password here; give it with --password-file FILE, `-` for standard input");
    }
    let mut text = Zeroizing::new(String::new());
    write!(io::stderr(), "Password of {}: ", dragonfly_core::text::harmless(username))?;
    let quiet = Quiet::begin().context("the terminal's echo cannot be switched off")?;
    let read = io::stdin().read_line(&mut text);
    drop(quiet);
    writeln!(io::stderr())?;
    read?;
    Ok(text)
}

/// The terminal without echo, for as long as this lives.
struct Quiet(Termios);

impl Quiet {
    fn begin() -> nix::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut now = before.clone();
        now.local_flags.remove(LocalFlags::ECHO);
        tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &now)?;
        Ok(Self(before))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // There is nobody to tell: a shell puts its terminal in order by itself.
        let _ = tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_s_last_line_end_is_not_part_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pw");
        for (text, want) in
            [("secret", "secret"), ("secret\n", "secret"), ("secret\r\n", "secret"), (" a b \n", " a b ")]
        {
            std::fs::write(&path, text).unwrap();
            assert_eq!(read(Some(&path), "admin").unwrap().reveal(), want);
        }
        std::fs::write(&path, "\n").unwrap();
        assert_eq!(read(Some(&path), "admin").unwrap_err().to_string(), "the password is empty");
        let error = read(Some(&dir.path().join("none")), "admin").unwrap_err();
        assert!(error.to_string().contains("none cannot be read"), "{error}");
    }
}
