//! What is always true of the object manager, checked after every step in debug builds.

use std::collections::HashMap;

use crate::job::entry::Stage;
use crate::job::{Group, JobId};
use crate::manager::ObjectManager;

impl ObjectManager {
    /// The first rule that does not hold, in words.
    #[must_use]
    pub fn broken_invariant(&self) -> Option<String> {
        self.broken_tree().or_else(|| self.broken_counts()).or_else(|| self.broken_groups())
    }

    fn broken_tree(&self) -> Option<String> {
        for (&id, job) in &self.jobs {
            if let Some(parent) = job.parent {
                let Some(above) = self.jobs.get(&parent) else {
                    return Some(format!("{id} has lost its parent {parent}"));
                };
                if above.children.iter().filter(|child| **child == id).count() != 1 {
                    return Some(format!("{parent} does not list its child {id} once"));
                }
            }
            if let Some(child) = job
                .children
                .iter()
                .find(|child| self.jobs.get(child).is_none_or(|c| c.parent != Some(id)))
            {
                return Some(format!("{child} is listed by {id}, which is not its parent"));
            }
            if self.chain(id).take(self.jobs.len() + 1).count() > self.jobs.len() {
                return Some(format!("{id} is its own ancestor"));
            }
        }
        None
    }

    fn broken_counts(&self) -> Option<String> {
        let mut handles: HashMap<JobId, u32> = HashMap::new();
        for entry in self.sessions.values().flat_map(|table| table.entries()) {
            *handles.entry(entry.job).or_default() += 1;
        }
        let mut entering: HashMap<JobId, (u32, u32)> = HashMap::new();
        for entry in self.entries.values() {
            for job in &entry.chain {
                let counts = entering.entry(*job).or_default();
                counts.0 += 1;
                counts.1 += u32::from(entry.stage == Stage::Acting);
            }
        }
        for (id, job) in &self.jobs {
            let open = handles.get(id).copied().unwrap_or(0);
            if open != job.handles {
                return Some(format!("{id} counts {} handles and has {open}", job.handles));
            }
            let on_the_way = entering.get(id).copied().unwrap_or((0, 0));
            if on_the_way != (job.entering, job.acting) {
                return Some(format!(
                    "{id} counts {:?} newcomers and has {on_the_way:?}",
                    (job.entering, job.acting)
                ));
            }
            let idle = job.group == Group::None && job.entering == 0 && job.children.is_empty();
            if job.handles == 0 && idle {
                return Some(format!("{id} has no handle, no member and no child, and exists"));
            }
        }
        None
    }

    fn broken_groups(&self) -> Option<String> {
        for (&id, job) in &self.jobs {
            if let Group::Ready(group) | Group::Renewing(group) = job.group
                && self.groups.get(&group) != Some(&id)
            {
                return Some(format!("the group of {id} is not known as its"));
            }
            if job.group.key().is_some() && !job.is_misplaced() {
                let parent = job.parent.map(|parent| self.job(parent).group);
                if matches!(parent, Some(Group::None | Group::Making)) {
                    return Some(format!("{id} has a group and its parent has none"));
                }
            }
        }
        let mut groups = self.groups.iter();
        let stray = groups
            .find(|(group, id)| self.jobs.get(id).is_none_or(|j| j.group.key() != Some(**group)));
        stray.map(|(group, id)| format!("{group:?} is not the group of {id}"))
    }
}
