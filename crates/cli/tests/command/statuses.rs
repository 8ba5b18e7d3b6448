//! What `job run` ends with.

use std::os::unix::process::ExitStatusExt;

use rustix::process::Signal;

use crate::common::{Live, Scratch, becomes, finish, ran, run, send_signal, sh};

#[test]
fn the_status_of_the_command_is_ours() {
    for code in [0, 1, 7, 42, 124, 125, 255] {
        assert_eq!(ran(&mut sh(&[], &format!("exit {code}"))).code(), code);
    }
}

#[test]
fn nothing_is_said_when_nothing_is_out_of_the_ordinary() {
    let ran = ran(&mut sh(&["-t", "1h", "-p", "100"], "echo out; echo err >&2"));
    assert_eq!((ran.code(), &*ran.out, &*ran.err), (0, "out\n", "err\n"));
}

#[test]
fn a_command_that_dies_of_a_signal_takes_us_with_it_and_leaves_no_core() {
    // The command's own core, where there is one, goes where nobody keeps it.
    let scratch = Scratch::new("cores");
    for signal in [
        Signal::SEGV,
        Signal::TERM,
        Signal::INT,
        Signal::QUIT,
        Signal::KILL,
        Signal::USR1,
        Signal::PIPE,
        Signal::ABORT,
    ] {
        let script = "ulimit -c unlimited 2>/dev/null; echo $$; exec sleep 1000";
        let mut live = Live::start(sh(&[], script).current_dir(scratch.path("")));
        let command = live.number();
        becomes(command, "sleep");
        send_signal(command, signal);
        let ran = live.end();
        assert_eq!(ran.signal(), signal.as_raw());
        assert!(!ran.status.core_dumped(), "{signal:?}");
    }
}

#[test]
fn a_command_that_is_not_there_is_127_and_one_that_cannot_be_executed_126() {
    let scratch = Scratch::new("statuses");
    let text = scratch.file("text", "not a program", 0o644);
    let script = scratch.file("script", "#!/nonexistent/interpreter\n", 0o755);
    for (program, code, said) in [
        ("job-test-no-such-command", 127, "no directory of PATH has it"),
        ("/nonexistent/command", 127, "there is no such file"),
        (script.to_str().unwrap(), 127, "interpreter"),
        (text.to_str().unwrap(), 126, "permission denied"),
        ("/", 126, "permission denied"),
        ("", 127, "no such file"),
    ] {
        let ran = ran(&mut run(&["--", program]));
        assert_eq!(ran.code(), code, "{program:?}: {ran:?}");
        assert!(ran.err.starts_with("job: cannot run"), "{ran:?}");
        assert!(ran.err.contains(said), "{ran:?}");
    }
}

#[test]
fn a_usage_error_is_125_and_says_what_to_do() {
    for words in [&["--nonsense", "true"][..], &["-t", "10", "true"], &[], &["-p"]] {
        let ran = ran(&mut run(words));
        assert_eq!(ran.code(), 125, "{words:?}");
        assert!(ran.err.starts_with("job: "), "{ran:?}");
        assert!(ran.err.contains("\nhint: "), "{ran:?}");
        assert_eq!(ran.out, "");
    }
}

#[test]
fn help_comes_with_examples_on_standard_output() {
    for words in [&["--help"][..], &["run", "--help"], &["which", "-h"], &["explain", "--help"]] {
        let ran = finish(std::process::Command::new(crate::common::JOB).args(words));
        assert_eq!(ran.code(), 0, "{words:?}");
        assert!(ran.out.contains("job"), "{ran:?}");
        assert_eq!(ran.err, "");
        if words.len() > 1 {
            assert!(ran.out.contains("Examples:"), "{words:?}");
        }
    }
}
