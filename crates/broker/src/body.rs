// SPDX-License-Identifier: AGPL-3.0-only
//! Messages of the contract as bodies: what came in is decoded, or it is said why it can't be; what goes out is encoded,
//! with what names it.

use holdfast_contract::v1::{Error, ErrorCode};
use holdfast_contract::{Body, CONTENT_TYPE};

use crate::message::Message;

impl Message {
    /// A message of the contract as it is sent.
    #[must_use]
    pub fn of<T: Body>(body: &T) -> Self {
        let mut message = Self::new(T::TYPE, body.encode_to_vec());
        message.properties.content_type = Some(CONTENT_TYPE.into());
        message
    }

    /// The message of the contract that this one says it is, if it has at most so many bytes.
    ///
    /// # Errors
    /// What to answer whoever sent it: `TOO_LARGE`, `UNSUPPORTED` or `MALFORMED`.
    pub fn decode<T: Body + Default>(&self, max_bytes: usize) -> Result<T, Error> {
        let size = self.body.len();
        if size > max_bytes {
            let text = format!("{size} bytes: a {} has at most {max_bytes}", T::TYPE);
            return Err(Error::new(ErrorCode::TooLarge, text));
        }
        match self.properties.kind.as_deref() {
            Some(kind) if kind == T::TYPE => {}
            Some(_) => {
                let text =
                    format!("the property type names no message that is understood here, as {}", T::TYPE);
                return Err(Error::new(ErrorCode::Unsupported, text));
            }
            None => {
                let text = format!("the property type is missing: expected {}", T::TYPE);
                return Err(Error::new(ErrorCode::Malformed, text));
            }
        }
        T::decode(self.body.clone())
            .map_err(|error| Error::new(ErrorCode::Malformed, format!("the body is no {}: {error}", T::TYPE)))
    }
}

#[cfg(test)]
mod tests {
    use holdfast_contract::v1::{GetGuild, Guild};

    use super::*;

    #[test]
    fn a_message_is_what_its_type_says_or_nothing() {
        let asked = GetGuild { guild_id: 7, ..GetGuild::default() };
        let good = Message::of(&asked);
        assert_eq!(good.properties.content_type.as_deref(), Some(CONTENT_TYPE));
        assert_eq!(good.decode::<GetGuild>(100), Ok(asked));
        let code = |message: &Message| message.decode::<GetGuild>(100).unwrap_err().code();
        assert_eq!(code(&Message::new(GetGuild::TYPE, vec![0xff; 9])), ErrorCode::Malformed);
        assert_eq!(code(&Message::default()), ErrorCode::Malformed);
        assert_eq!(code(&Message::new(Guild::TYPE, vec![])), ErrorCode::Unsupported);
        assert_eq!(code(&Message::new(GetGuild::TYPE, vec![0; 101])), ErrorCode::TooLarge);
    }
}
