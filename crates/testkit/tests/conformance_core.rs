//! The conformance cases on the object manager.

use std::path::Path;

use jobobject_testkit::CoreDriver;
use jobobject_testkit::conformance::run;

#[test]
fn the_object_manager_meets_every_case_but_the_known_gaps() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conformance/cases");
    let tally =
        run(&folder, &mut CoreDriver::default()).unwrap_or_else(|problem| panic!("{problem}"));
    assert!(tally.failures.is_empty(), "{tally}");
    assert!(tally.skipped.is_empty(), "the core can play everything: {tally}");
    assert!(tally.passed.len() > 100, "cases are missing: {tally}");
}
