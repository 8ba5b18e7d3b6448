//! The fake kernel keeps the promises that the real platform makes, its traps open or shut.

use jobobject_core::{Effect, Outcome, Place, ProcessState, Target};
use jobobject_testkit::contract::promises;
use jobobject_testkit::{FakeKernel, Traps, for_each_seed};

#[test]
fn the_fake_keeps_every_promise_with_traps_open_and_shut() {
    for_each_seed(20, |seed| {
        for traps in [Traps::default(), Traps::orderly(), Traps::all()] {
            for (promise, prove) in promises::<FakeKernel>() {
                let mut kernel = FakeKernel::new(traps.clone(), seed);
                let run = std::panic::AssertUnwindSafe(|| prove(&mut kernel));
                assert!(std::panic::catch_unwind(run).is_ok(), "broken: {promise} ({traps:?})");
                assert_eq!(kernel.violations(), [] as [String; 0], "{promise}");
            }
        }
    });
}

fn kernel_and_group(traps: Traps) -> (FakeKernel, jobobject_core::GroupKey) {
    let mut kernel = FakeKernel::new(traps, 1);
    let made = kernel.carry_out(&Effect::MakeGroup { parent: None, guarded: false }, None);
    let Ok(Outcome::Group(group)) = made else { panic!("no group: {made:?}") };
    (kernel, group)
}

#[test]
fn a_killed_leaf_kills_who_is_born_in_it() {
    let (mut kernel, group) = kernel_and_group(Traps { poisoned_leaves: true, ..Traps::default() });
    kernel.carry_out(&Effect::Kill { group, count: false }, None).expect("it kills");
    let target = Target::Group { group, frozen: false };
    let born = kernel.carry_out(&Effect::Birth { target }, None);
    let Ok(Outcome::Born { process, .. }) = born else { panic!("nobody: {born:?}") };
    assert!(!kernel.is_alive(process));
}

#[test]
fn a_zombie_joins_and_moves_nothing() {
    let (mut kernel, group) = kernel_and_group(Traps::default());
    let process = kernel.start(Place::Outside);
    kernel.exit(process, 0);
    assert_eq!(kernel.join(process, group), Ok(()));
    assert_eq!(kernel.facts(process).state, ProcessState::Ended);
    assert_eq!(kernel.facts(process).place, Place::Outside);
}

#[test]
fn the_raw_list_can_name_process_0() {
    let (kernel, group) = kernel_and_group(Traps { pid_zero: true, ..Traps::default() });
    assert_eq!(kernel.procs(group), [0]);
}

#[test]
fn the_first_removal_can_be_busy() {
    let (mut kernel, group) = kernel_and_group(Traps { busy_rmdir: true, ..Traps::default() });
    let retire = Effect::Retire { group };
    assert_eq!(kernel.carry_out(&retire, None).map_err(|fault| fault.errno), Err(16));
    assert_eq!(kernel.carry_out(&retire, None), Ok(Outcome::Retired));
}
