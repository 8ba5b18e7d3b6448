//! Where a process is, in the words of the rules: in one of our groups, outside, or somebody else's.

use std::sync::Arc;

use jobobject_core::Place;

use crate::group::Group;
use crate::mount;
use crate::record::Record;
use crate::root::Root;
use crate::site::Site;

/// Maps the group of a process to its place. `top` finds the group in a slot directly below a root.
pub(crate) fn place(
    site: &Site,
    roots: &[Arc<Root>],
    own: &str,
    group: &str,
    top: impl Fn(&Root, u16) -> Option<Arc<Group>>,
) -> Place {
    for root in roots {
        if let Some(below) = below(&root.group, group)
            && let Some(innermost) = innermost(root, below, &top)
        {
            return Place::Group(innermost.key);
        }
    }
    if group == own
        || roots.iter().any(|root| group == root.base.outside || group == root.base.group)
    {
        return Place::Outside;
    }
    let mut at = group;
    loop {
        if mount::within(at, own) {
            // From here up everything is around us as well.
            return Place::ForeignGroup(group.to_owned());
        }
        if let Some(Record::Job { .. }) = site.record(at) {
            return Place::ForeignJob(group.to_owned());
        }
        match mount::parent(at) {
            Some(above) => at = above,
            None => return Place::ForeignGroup(group.to_owned()),
        }
    }
}

/// The innermost of our groups in a path below a root: what others make inside ours counts as ours.
fn innermost(
    root: &Root,
    below: &str,
    top: &impl Fn(&Root, u16) -> Option<Arc<Group>>,
) -> Option<Arc<Group>> {
    let mut names = below.split('/');
    let mut group = top(root, names.next()?.parse().ok()?)?;
    for name in names {
        match name.parse().ok().and_then(|slot| group.child(slot)) {
            Some(child) => group = child,
            None => break,
        }
    }
    Some(group)
}

fn below<'p>(above: &str, group: &'p str) -> Option<&'p str> {
    group.strip_prefix(above)?.strip_prefix('/')
}
