// SPDX-License-Identifier: AGPL-3.0-only
//! Who may use the service. In: a request's headers. Out: whether it may pass. Secrets are compared in a time that
//! doesn't tell how much of them was right.

use holdfast_service::Secret;
use http::HeaderMap;
use http::header::AUTHORIZATION;

/// Who may use the service, and with which token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Access {
    /// What callers have to show in `Holdfast-Secret`.
    pub(crate) secret: Option<Secret>,
    /// Values of `Authorization`, if no others are taken.
    pub(crate) only: Option<Vec<Secret>>,
}

impl Access {
    /// Whether the request may pass. Requests without a token may, unless there is a secret: they can do nothing that
    /// their sender couldn't do elsewhere.
    pub(crate) fn admits(&self, headers: &HeaderMap) -> bool {
        let shown = headers.get("holdfast-secret").and_then(|value| value.to_str().ok());
        let knows = |secret: &Secret| shown.is_some_and(|it| secret.matches(it));
        self.secret.as_ref().is_none_or(knows) && self.takes(headers)
    }

    /// Whether the request's token is one that is taken.
    pub(crate) fn takes(&self, headers: &HeaderMap) -> bool {
        let Some(only) = &self.only else { return true };
        match headers.get(AUTHORIZATION).map(|value| value.to_str().unwrap_or_default()) {
            // Each is looked at, so that the time doesn't tell which one it was.
            Some(value) => only.iter().filter(|one| one.matches(value)).count() > 0,
            None => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_has_to_be_shown_and_other_tokens_stay_out() {
        let headers = |pairs: &[(&'static str, &'static str)]| {
            pairs
                .iter()
                .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
                .collect::<HeaderMap>()
        };
        let open = Access { secret: None, only: None };
        assert!(open.admits(&headers(&[("authorization", "Bearer x")])));
        let secret = Access { secret: Some(Secret::new("s")), only: None };
        assert!(secret.admits(&headers(&[("holdfast-secret", "s")])));
        assert!(!secret.admits(&headers(&[("holdfast-secret", "t")])) && !secret.admits(&headers(&[])));
        let only = Access { secret: None, only: Some(vec![Secret::new("Bot t"), Secret::new("Bearer s")]) };
        for listed in ["Bot t", "Bearer s"] {
            assert!(only.admits(&headers(&[("authorization", listed)])), "{listed}");
        }
        assert!(only.admits(&headers(&[])));
        for other in ["Bot u", "Bearer t", "Bot s", "t", "\u{e9}", ""] {
            assert!(!only.admits(&headers(&[("authorization", other)])), "{other}");
        }
    }
}
