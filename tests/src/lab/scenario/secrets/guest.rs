//! What the scenario's template does with its secret on the machine.

/// How often the step that says the secret fails: as often as makes the server give up.
const FAILURES: u8 = 2;

/// Says the secret, and fails: as it is, in base64 behind a name as HTTP's Basic has it, and across the end of what is
/// kept of a line, with six bytes and with twenty of it before. The lines are of wide characters: by their number they
/// are short. What is counted is in memory, as the agent is: the disk holds nothing of it.
const SAY: &str = r#"n=$(cat /run/lab-said 2>/dev/null || echo 0)
[ "$n" -lt @FAILURES@ ] || exit 0
echo $((n + 1)) > /run/lab-said
wide=$(printf '\360\237\220\211')
line() { printf "%0${1}d" 0 | sed "s/0/$wide/g"; }
printf 'plain %s\n' "$MARK"
printf 'basic %s\n' "$(printf 'user:%s' "$MARK" | base64 -w 0)"
printf '%s..%s and more\n' "$(line 1022)" "$MARK"
printf '%s%s and more\n' "$(line 1019)" "$MARK"
exit 7
"#;

/// What is to be seen of what it said, where the log is shown.
pub(super) const SAID: [&str; 4] =
    ["plain [secret]\n", "basic dXNlcjp[secret]", "..[secret] ... (the rest", "\u{1f409}[secret] ... (the rest"];
/// What is to be seen of it in the failure.
pub(super) const FAILED: &str = "exit code 7: plain [secret] | basic dXNlcjp[secret]";

/// Looks for the secret, or a part of it, in what every process of the machine was started with, and the kernel. It
/// was itself given it in its environment, which nobody else needs; what it starts is not. Ends with 5 if there is any,
/// with 6 if it cannot tell.
const LOOK: &str = r#"m=$MARK
unset MARK
a=${m%%/*} b=${m##*\"}
has() {
    case "$(tr '\0' '\n' 2>/dev/null < "$1")" in
    *"$a"* | *"$b"*) return 0 ;;
    *) return 1 ;;
    esac
}
has /proc/$$/environ || { echo "the search does not find what is there"; exit 6; }
[ -n "$(tr '\0' ' ' < /proc/1/cmdline)" ] || { echo "the first process does not show itself"; exit 6; }
[ -n "$(tr -d '\0' < /proc/cmdline)" ] || { echo "the kernel does not show itself"; exit 6; }
tr -d '\0' < /proc/$PPID/environ > /dev/null || { echo "environments do not show themselves"; exit 6; }
for process in /proc/[0-9]*; do
    has "$process/cmdline" && { echo "it is in $process/cmdline"; exit 5; }
    [ "$process" = /proc/$$ ] && continue
    has "$process/environ" && { echo "it is in $process/environ"; exit 5; }
done 2>/dev/null
has /proc/cmdline && { echo "it is in /proc/cmdline"; exit 5; }
exit 0
"#;

/// The steps: into a file; by its environment into a program that says it and fails at first; and a look at who else
/// has it.
pub(super) fn steps() -> String {
    let write = r#"- name: secret
  action: writefile
  with: {target: {label: dflyroot}, path: /etc/dragonfly-lab-secret, content: "{{ values.mark }}", mode: "0600"}
"#;
    let run = |name: &str, script: &str| {
        let script: String = script.lines().map(|line| format!("        {line}\n")).collect();
        format!(
            r#"- name: {name}
  action: chroot-exec
  with:
    target: {{label: dflyroot}}
    env: {{MARK: "{{{{ values.mark }}}}"}}
    argv:
      - /bin/sh
      - -c
      - |
{script}"#
        )
    };
    let say = SAY.replace("@FAILURES@", &FAILURES.to_string());
    format!("{write}{}{}", run("say", &say), run("look", LOOK))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    const MARK: &str = "mk0123456789ab/+ \"x0123456789cd";

    fn looks(mark: &str) -> (Option<i32>, String) {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", LOOK]).env("MARK", mark).stdin(Stdio::null());
        let done = command.output().expect("a shell");
        (done.status.code(), String::from_utf8_lossy(&done.stdout).into_owned())
    }

    #[test]
    fn the_look_finds_a_part_of_the_secret_in_arguments_and_in_environments() {
        assert_eq!(looks(MARK), (Some(0), String::new()));
        for (argument, variable, found) in [("mk0123456789ab", "", "/cmdline\n"), ("", "-x0123456789cd-", "/environ\n")]
        {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", "read wait", "sh", argument]).env("OTHER", variable).stdin(Stdio::piped());
            let mut other = command.spawn().expect("a shell");
            let (code, said) = looks(MARK);
            other.kill().expect("it waits");
            other.wait().expect("its end");
            assert!(code == Some(5) && said.ends_with(found), "{code:?}: {said}");
        }
    }

    #[test]
    fn the_scripts_are_steps_of_a_template() {
        let text = crate::lab::manifest::template("t", &steps());
        let read = dragonfly_core::resource::manifest::parse(&text);
        assert!(read.is_ok(), "{:?}", read.err());
        assert!(text.contains(r#"env: {MARK: "{{ values.mark }}"}"#), "{text}");
    }
}
