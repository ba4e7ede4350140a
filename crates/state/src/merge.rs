// SPDX-License-Identifier: AGPL-3.0-only
//! Base and changes put together. In: a list of the base and the changes. Out: the entities that are there now,
//! one by one, each either a slice of the base or of a change, or new bytes where both have a part in it.

use std::borrow::Cow;
use std::collections::HashSet;

use crate::ReadError;
use crate::block::{Entity, List, Stored};
use crate::changes::{Changes, Slot, parent_of};
use crate::json::{self, Traits};
use crate::patch;
use crate::section::Section;

/// An entity as it is now.
pub(crate) struct Current<'a> {
    pub(crate) bytes: Cow<'a, [u8]>,
    /// `None`: not looked at yet, since the bytes are new.
    traits: Option<Traits>,
    pub(crate) id: Option<u64>,
}

impl Current<'_> {
    pub(crate) fn traits(&self, section: Section) -> Traits {
        self.traits.unwrap_or_else(|| {
            std::str::from_utf8(&self.bytes)
                .map_or_else(|_| Traits::default(), |it| json::traits(section, it))
        })
    }
}

/// Whether the list is as the base has it.
pub(crate) fn untouched(section: Section, changes: &Changes) -> bool {
    let noted = matches!(section, Section::Channels | Section::Threads | Section::ScheduledEvents);
    !(noted && changes.has_notes()
        || changes.has(Slot::Entity(section))
        || changes.has(Slot::patch(section))
        || changes.has(Slot::Whole(section))
        || section == Section::Members && changes.has(Slot::OwnUser)
        || section == Section::Threads && changes.has(Slot::Cleared))
}

/// Calls `each` with all entities of a list: those of the base in its order, then new ones by id.
pub(crate) fn resolve<'a>(
    section: Section,
    stored: &Stored<'a>,
    changes: &'a Changes,
    each: &mut dyn FnMut(Current<'a>),
) -> Result<(), ReadError> {
    let list = match stored {
        Stored::List(list) => *list,
        Stored::Absent | Stored::Null => List::default(),
    };
    let mut seen = HashSet::new();
    let whole = changes.get(Slot::Whole(section), 0);
    let replaced = match whole {
        Some(whole) => json::elements(&whole.data).map_err(|_| ReadError::Damaged)?,
        None => Vec::new(),
    };
    let mut base_count = 0;
    let base = list.entities().filter(|_| whole.is_none());
    let replaced =
        replaced.into_iter().map(|it| Entity { bytes: it.as_bytes(), traits: json::traits(section, it) });
    for entity in base.chain(replaced) {
        base_count += 1;
        if let Some(current) = from_base(section, entity, changes, &mut seen) {
            each(current);
        }
    }
    if whole.is_none() && base_count != list.count {
        return Err(ReadError::Damaged);
    }
    for (id, entry) in changes.in_slot(Slot::Entity(section)) {
        if !entry.gone && !seen.contains(&id) {
            let bytes = changes.finished(section, id, Cow::Borrowed(&*entry.data));
            each(Current { bytes, traits: None, id: Some(id) });
        }
    }
    Ok(())
}

fn from_base<'a>(
    section: Section,
    entity: Entity<'a>,
    changes: &'a Changes,
    seen: &mut HashSet<u64>,
) -> Option<Current<'a>> {
    let Some(id) = entity.traits.id else {
        let bytes = Cow::Borrowed(entity.bytes);
        return Some(Current { bytes, traits: Some(entity.traits), id: None });
    };
    let bytes = match changes.get(Slot::Entity(section), id) {
        Some(entry) => {
            seen.insert(id);
            if entry.gone {
                return None;
            }
            if entry.fresh {
                Cow::Borrowed(&*entry.data)
            } else {
                let fields = json::Fields::parse(&entry.data).unwrap_or_default();
                Cow::Owned(patch::carried(section, entity.bytes, &fields))
            }
        }
        None => {
            let is_thread = section == Section::Threads && changes.has(Slot::Cleared);
            if is_thread && changes.is_cleared(parent_of(entity.bytes)) {
                return None;
            }
            Cow::Borrowed(entity.bytes)
        }
    };
    let unchanged = matches!(bytes, Cow::Borrowed(bytes) if std::ptr::eq(bytes, entity.bytes));
    let bytes = changes.finished(section, id, bytes);
    let unchanged = unchanged && matches!(bytes, Cow::Borrowed(_));
    Some(Current { bytes, traits: unchanged.then_some(entity.traits), id: Some(id) })
}

/// Members that GUILD_MEMBER_ADD brought though they were there ("may also be sent for users who are already
/// members"), so that they were counted twice.
pub(crate) fn counted_twice(stored: &Stored<'_>, changes: &Changes) -> Vec<u64> {
    let members = Slot::Entity(Section::Members);
    if !changes.in_slot(members).any(|(_, entry)| entry.joined) {
        return Vec::new();
    }
    let joined = |id: &u64| changes.get(members, *id).is_some_and(|it| it.joined);
    match stored {
        Stored::List(list) => list.entities().filter_map(|it| it.traits.id).filter(joined).collect(),
        Stored::Absent | Stored::Null => Vec::new(),
    }
}
