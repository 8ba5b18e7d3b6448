//! A process that does what it is told: exit, burn, fork, ignore signals.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use jobobject_sys::{clock, signal};

/// What an actor is called in its case.
pub(crate) const NAME: &str = "JOB_CONFORMANCE_ACTOR";
/// The socket that it takes its orders from.
pub(crate) const SOCKET: &str = "JOB_CONFORMANCE_SOCKET";

/// The arguments that make this program play a role.
pub(crate) const ARGUMENTS: [&str; 5] =
    ["role", "--exact", "--nocapture", "--test-threads=1", "--quiet"];

pub(crate) fn is_one() -> bool {
    std::env::var_os(NAME).is_some()
}

pub(crate) fn act() -> ! {
    let stream =
        UnixStream::connect(std::env::var_os(SOCKET).expect("a socket")).expect("a driver");
    let mut answers = stream.try_clone().expect("a second descriptor");
    let name = std::env::var(NAME).expect("a name");
    writeln!(answers, "{name} {}", std::process::id()).expect("a driver that listens");
    for order in BufReader::new(stream).lines() {
        let Ok(order) = order else { break };
        let answer = obey(&order);
        if writeln!(answers, "{answer}").is_err() {
            break;
        }
    }
    // The driver is gone, and with it the case.
    std::process::exit(0)
}

fn obey(order: &str) -> String {
    let words: Vec<&str> = order.split(' ').collect();
    match words[..] {
        ["exit", code] => std::process::exit(code.parse().expect("a code")),
        ["burn", millis] => {
            burn(Duration::from_millis(millis.parse().expect("a time")));
            "done".to_owned()
        }
        ["ignore"] => {
            for number in (1..32).filter(|number| ![9, 17, 18, 19].contains(number)) {
                signal::set_ignored(number).expect("a signal that can be ignored");
            }
            "done".to_owned()
        }
        ["fork", name] => fork(name).to_string(),
        _ => panic!("an order that nobody knows: {order}"),
    }
}

/// So much user time, and at least as much time.
pub(crate) fn burn(time: Duration) {
    let us = std::process::id();
    let used = || Duration::from_nanos(clock::user_ns(us).expect("we live"));
    // The kernel splits time into user and system by sampling, and not the same for a process and for its
    // group: be on the safe side of the figure asked for.
    let end = used() + time + time / 20 + Duration::from_millis(4);
    while used() < end {
        let mut sum = 0_u64;
        for number in 0..200_000 {
            sum = std::hint::black_box(sum.wrapping_add(number));
        }
    }
}

/// Starts another actor without asking anybody; its id.
#[allow(clippy::zombie_processes, reason = "it ends with the case, as its parent does")]
pub(crate) fn fork(name: &str) -> u32 {
    let mut command = Command::new(std::env::current_exe().expect("our program"));
    let child = command.args(ARGUMENTS).env(NAME, name).spawn().expect("another actor");
    child.id()
}
