// SPDX-License-Identifier: AGPL-3.0-only
//! Who waits for what Discord says to a command, and what becomes of the command until then.
//!
//! In: commands that are followed, events of the few kinds that answer one, the end of a connection. Out: words to
//! whoever follows the command. Pure; owned by the shard's core; while nobody waits an event costs a look at a
//! length.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_discord::EventKind;
use tokio::sync::mpsc;

use super::{members::NOBODY, outbox::Ticket};
use crate::log::Position;

/// Words to one follower that it hasn't heard yet: places in the log, 24 bytes each. A guild of four million members
/// comes in as many chunks.
const UNHEARD: usize = 4_096;

/// What answers a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Nothing.
    Nothing,
    /// Voice events of this guild.
    Voice(u64),
    /// The chunks of this member request.
    Members(u64),
    /// The sounds of these guilds.
    Sounds(BTreeSet<u64>),
    /// The next channel info of this guild that isn't an answer to somebody before.
    ChannelInfo(u64),
}

/// What is said to a follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// The command is written to Discord.
    Written,
    /// This may be a part of the answer.
    Event(EventKind, Position),
    /// It was taken to be sent, and the connection is gone: whether Discord did it isn't known.
    Interrupted,
    /// Too much was waiting: it won't be sent.
    Dropped,
}

/// The followed commands of one shard.
#[derive(Debug, Default)]
pub(crate) struct Awaited {
    next: u64,
    followed: BTreeMap<u64, Followed>,
    /// Numbers of those taken to be sent, in that order.
    sent: Vec<u64>,
}

#[derive(Debug)]
struct Followed {
    wanted: Wanted,
    to: mpsc::Sender<Said>,
}

impl Awaited {
    /// Begins to follow a command. Only what comes after it was taken to be sent answers it.
    pub(crate) fn follow(&mut self, wanted: Wanted) -> (Ticket, mpsc::Receiver<Said>) {
        let (to, words) = mpsc::channel(UNHEARD);
        self.next += 1;
        self.followed.insert(self.next, Followed { wanted, to });
        (Ticket::new(self.next), words)
    }

    /// Nobody follows it any more.
    pub(crate) fn forget(&mut self, number: u64) {
        self.followed.remove(&number);
        self.sent.retain(|sent| *sent != number);
    }

    /// It is being sent now: what Discord says from here on may answer it.
    pub(super) fn taken(&mut self, number: u64) {
        if self.followed.contains_key(&number) {
            self.sent.push(number);
        }
    }

    /// Says something about one command.
    pub(super) fn tell(&self, number: u64, said: Said) {
        if let Some(followed) = self.followed.get(&number) {
            followed.tell(said);
        }
    }

    /// The connection is gone, and with it what was sent on it.
    pub(super) fn interrupt(&mut self) {
        for number in std::mem::take(&mut self.sent) {
            self.tell(number, Said::Interrupted);
        }
    }

    /// Whether anybody waits for an event of this kind.
    pub(super) fn concerns(&self, kind: EventKind) -> bool {
        !self.sent.is_empty()
            && matches!(
                kind,
                EventKind::GuildMembersChunk
                    | EventKind::RateLimited
                    | EventKind::VoiceStateUpdate
                    | EventKind::VoiceServerUpdate
                    | EventKind::SoundboardSounds
                    | EventKind::ChannelInfo
            )
    }

    /// An event that [concerns](Awaited::concerns) somebody has been appended.
    pub(super) fn event(&mut self, kind: EventKind, guild: u64, audience: u64, position: Position) {
        let mut answered = false;
        for number in &self.sent {
            let Some(followed) = self.followed.get_mut(number) else { continue };
            let answers = match (kind, &followed.wanted) {
                (EventKind::GuildMembersChunk | EventKind::RateLimited, Wanted::Members(request)) => {
                    *request == audience
                }
                // One that names no request of ours: whoever reads it knows the opcode that it is about.
                (EventKind::RateLimited, wanted) => audience == NOBODY && *wanted != Wanted::Nothing,
                (EventKind::VoiceStateUpdate | EventKind::VoiceServerUpdate, Wanted::Voice(its)) => {
                    *its == guild
                }
                (EventKind::SoundboardSounds, Wanted::Sounds(guilds)) => guilds.contains(&guild),
                // Answers carry no name: they come in the order of the questions.
                (EventKind::ChannelInfo, Wanted::ChannelInfo(its)) => *its == guild && !answered,
                _ => false,
            };
            if !answers {
                continue;
            }
            followed.tell(Said::Event(kind, position));
            if kind == EventKind::ChannelInfo {
                answered = true;
                followed.wanted = Wanted::Nothing;
            }
        }
    }
}

impl Followed {
    /// A follower that doesn't listen misses it, and ends by its deadline.
    fn tell(&self, said: Said) {
        let _ = self.to.try_send(said);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_comes_after_the_sending_answers() {
        let mut awaited = Awaited::default();
        let (ticket, mut words) = awaited.follow(Wanted::Voice(5));
        assert!(!awaited.concerns(EventKind::VoiceStateUpdate), "it isn't sent");
        awaited.taken(ticket.number);
        awaited.tell(ticket.number, Said::Written);
        assert!(awaited.concerns(EventKind::VoiceStateUpdate));
        assert!(!awaited.concerns(EventKind::MessageCreate));
        awaited.event(EventKind::VoiceStateUpdate, 6, 0, 10);
        awaited.event(EventKind::VoiceStateUpdate, 5, 0, 11);
        awaited.event(EventKind::VoiceServerUpdate, 5, 0, 12);
        assert_eq!(
            heard(&mut words),
            [
                Said::Written,
                Said::Event(EventKind::VoiceStateUpdate, 11),
                Said::Event(EventKind::VoiceServerUpdate, 12)
            ]
        );
        awaited.forget(ticket.number);
        assert!(!awaited.concerns(EventKind::VoiceStateUpdate));
    }

    #[test]
    fn channel_infos_answer_in_the_order_of_the_questions() {
        let mut awaited = Awaited::default();
        let mut asked: Vec<_> = [7, 5, 5].map(|guild| awaited.follow(Wanted::ChannelInfo(guild))).into();
        // The third is sent before the second.
        for index in [0, 2, 1] {
            awaited.taken(asked[index].0.number);
        }
        for position in [1, 2, 3] {
            awaited.event(EventKind::ChannelInfo, 5, 0, position);
        }
        let heard: Vec<_> = asked.iter_mut().map(|(_, words)| heard(words)).collect();
        let info = |position| vec![Said::Event(EventKind::ChannelInfo, position)];
        assert_eq!(heard, [vec![], info(2), info(1)]);
    }

    #[test]
    fn members_go_by_their_request_and_a_limit_without_a_name_to_the_others() {
        let mut awaited = Awaited::default();
        let (first, mut members) = awaited.follow(Wanted::Members(3));
        let (second, mut sounds) = awaited.follow(Wanted::Sounds(BTreeSet::from([1])));
        awaited.taken(first.number);
        awaited.taken(second.number);
        awaited.event(EventKind::GuildMembersChunk, 1, 4, 1);
        awaited.event(EventKind::GuildMembersChunk, 1, 3, 2);
        awaited.event(EventKind::RateLimited, 0, 3, 3);
        awaited.event(EventKind::RateLimited, 0, NOBODY, 4);
        let (chunk, limited) = (EventKind::GuildMembersChunk, EventKind::RateLimited);
        assert_eq!(heard(&mut members), [Said::Event(chunk, 2), Said::Event(limited, 3)]);
        assert_eq!(heard(&mut sounds), [Said::Event(limited, 4)]);
    }

    #[test]
    fn the_end_of_a_connection_concerns_what_was_sent_on_it() {
        let mut awaited = Awaited::default();
        let (sent, mut lost) = awaited.follow(Wanted::Nothing);
        let (_waits, mut waiting) = awaited.follow(Wanted::Nothing);
        awaited.taken(sent.number);
        awaited.interrupt();
        awaited.interrupt();
        assert_eq!(heard(&mut lost), [Said::Interrupted]);
        assert_eq!(heard(&mut waiting), []);
    }

    fn heard(words: &mut mpsc::Receiver<Said>) -> Vec<Said> {
        std::iter::from_fn(|| words.try_recv().ok()).collect()
    }
}
