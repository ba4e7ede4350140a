// SPDX-License-Identifier: AGPL-3.0-only
//! Texts that differ from guild to guild only in slots of fixed width.
//!
//! In: a JSON text with placeholders, a guild's number. Out: the guild's JSON, at the speed of a copy. So a world
//! of thousands of large guilds costs no memory until it changes, and every guild still has its own ids and hashes.

/// Stands for the guild's id.
pub(crate) const GUILD: &str = "%%%%%%%%%%%%%%%%%%%";
/// Stands for the latest message in the guild's first text channel.
pub(crate) const LAST_MESSAGE: &str = "&&&&&&&&&&&&&&&&&&&";

/// A placeholder for `len` hexadecimal digits of the guild's own; `slot` tells placeholders apart.
pub(crate) fn hex(len: usize, slot: u32) -> String {
    format!("{:^<len$}", format!("^{slot:07}"))
}

/// A placeholder for `len` small letters of the guild's own.
pub(crate) fn word(len: usize, slot: u32) -> String {
    format!("{:`<len$}", format!("`{slot:07}"))
}

/// A placeholder for the id of the guild's `n`th entity of a kind; see `world::entity`.
pub(crate) fn id(kind: u8, n: u32) -> String {
    format!("1{kind:02}########{n:08}")
}

#[derive(Clone, Copy, Debug)]
enum Fill {
    Index,
    Guild,
    LastMessage,
    Hex(u32),
    Word(u32),
}

/// A parsed text.
#[derive(Debug)]
pub(crate) struct Template {
    text: Vec<u8>,
    slots: Vec<(usize, usize, Fill)>,
}

impl Template {
    /// Finds the placeholders.
    pub(crate) fn parse(text: String) -> Self {
        let text = text.into_bytes();
        let mut slots = Vec::new();
        let mut at = 0;
        while at < text.len() {
            let mark = text[at];
            if !matches!(mark, b'#' | b'%' | b'&' | b'^' | b'`') {
                at += 1;
                continue;
            }
            let number = text.get(at + 1..at + 8).and_then(|digits| std::str::from_utf8(digits).ok());
            let slot = number.and_then(|digits| digits.parse().ok()).unwrap_or_default();
            let start = at;
            if matches!(mark, b'^' | b'`') {
                at += 8;
            }
            while at < text.len() && text[at] == mark {
                at += 1;
            }
            let fill = match mark {
                b'#' => Fill::Index,
                b'%' => Fill::Guild,
                b'&' => Fill::LastMessage,
                b'^' => Fill::Hex(slot),
                _ => Fill::Word(slot),
            };
            slots.push((start, at, fill));
        }
        Self { text, slots }
    }

    /// The text for the guild with this number, id and latest message.
    pub(crate) fn render(&self, index: u32, guild: u64, last_message: u64) -> Vec<u8> {
        let mut out = self.text.clone();
        let (index_digits, guild, last) =
            (format!("{index:08}"), format!("{guild:019}"), format!("{last_message:019}"));
        for (start, end, fill) in &self.slots {
            let space = &mut out[*start..*end];
            match fill {
                Fill::Index => space.copy_from_slice(index_digits.as_bytes()),
                Fill::Guild => space.copy_from_slice(guild.as_bytes()),
                Fill::LastMessage => space.copy_from_slice(last.as_bytes()),
                Fill::Hex(slot) => scatter(space, index, *slot, b"0123456789abcdef"),
                Fill::Word(slot) => scatter(space, index, *slot, b"aeiourstlnmdkpbe"),
            }
        }
        out
    }
}

/// Fills `space` with letters that depend only on guild and slot.
fn scatter(space: &mut [u8], index: u32, slot: u32, letters: &[u8; 16]) {
    let mut state = u64::from(index) << 32 | u64::from(slot);
    for chunk in space.chunks_mut(16) {
        state = mix(state);
        for (place, byte) in chunk.iter_mut().enumerate() {
            *byte = letters[usize::try_from(state >> (4 * place) & 15).unwrap_or_default()];
        }
    }
}

/// SplitMix64.
fn mix(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ z >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_filled_and_each_guild_gets_its_own() {
        let text = format!("{} {GUILD} {LAST_MESSAGE} {} {}", id(3, 7), hex(32, 5), word(9, 6));
        let template = Template::parse(text);
        let (one, two) = (template.render(1, 42, 43), template.render(2, 42, 43));
        let one = String::from_utf8(one).unwrap();
        assert!(one.starts_with("1030000000100000007 0000000000000000042 0000000000000000043 "), "{one}");
        assert!(!one.contains(['#', '%', '&', '^', '`']), "{one}");
        assert_ne!(one.as_bytes(), two);
        assert_eq!(template.render(1, 42, 43), one.as_bytes(), "rendering is repeatable");
    }
}
