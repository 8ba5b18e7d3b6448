//! The end of many members, against a bare write to `cgroup.kill`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jobobject::{Child, Command, Job};

use crate::sample::{Effort, median, report, time};
use crate::{CHILD, Result};

pub(crate) fn terminate(effort: Effort, members: usize) -> Result {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..effort.rounds(24) {
        for side in [round % 2, (round + 1) % 2] {
            let job = Job::new()?;
            let mut children = sleepers(&job, members)?;
            if side == 0 {
                ours.push(time(|| {
                    job.terminate(1).expect("a job can be terminated");
                    job.wait().expect("a job can be waited for");
                }));
            } else {
                let group = group_of(children[0].id())?;
                theirs.push(time(|| kill_bare(&group)));
            }
            for child in &mut children {
                child.wait()?;
            }
        }
    }
    report(&format!("terminate {members}"), median(ours), Some(median(theirs)));
    Ok(())
}

/// So many members that sleep.
pub(crate) fn sleepers(job: &Job, members: usize) -> Result<Vec<Child>> {
    let mut sleeper = Command::new(CHILD);
    sleeper.arg("sleep");
    let children: jobobject::Result<Vec<_>> = (0..members).map(|_| sleeper.spawn_in(job)).collect();
    Ok(children?)
}

/// What one would write without this library: one write, then a look every 50 µs. A sleep on the file
/// itself may be told up to 10 ms late.
fn kill_bare(group: &Path) {
    fs::write(group.join("cgroup.kill"), "1").expect("a group can be killed");
    let populated = || {
        fs::read_to_string(group.join("cgroup.events"))
            .is_ok_and(|events| events.contains("populated 1"))
    };
    while populated() {
        std::thread::sleep(Duration::from_micros(50));
    }
}

/// The directory of the job whose member this process is: one above its leaf.
fn group_of(pid: u32) -> Result<PathBuf> {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let group = groups.lines().find_map(|line| line.strip_prefix("0::"));
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let mount = mounts.lines().find(|line| line.contains(" - cgroup2 "));
    let (group, mount) = group.zip(mount).ok_or("no cgroup v2 hierarchy")?;
    let mut fields = mount.split(' ').skip(3);
    let (root, mounted) = fields.next().zip(fields.next()).ok_or("no such mount")?;
    let below = Path::new(group).strip_prefix(root)?;
    let leaf = Path::new(mounted).join(below);
    Ok(leaf.parent().ok_or("a member is in a leaf")?.to_owned())
}
