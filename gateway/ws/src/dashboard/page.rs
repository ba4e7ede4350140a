// SPDX-License-Identifier: AGPL-3.0-only
//! The page, in one piece: its style and its script stand in it, and nothing else may be loaded or run. In: three files.
//! Out: the text that `/` answers with.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::{Digest as _, Sha256};

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// The whole page.
pub(super) fn text() -> String {
    let allowed = |text: &str| format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text)));
    let policy = format!(
        "default-src 'none'; style-src {}; script-src {}; connect-src 'self'; base-uri 'none'; form-action 'none'",
        allowed(STYLE),
        allowed(SCRIPT)
    );
    PAGE.replacen("{policy}", &policy, 1).replacen("{style}", STYLE, 1).replacen("{script}", SCRIPT, 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_in_its_place_and_nothing_comes_from_elsewhere() {
        let text = text();
        for place in ["{policy}", "{style}", "{script}"] {
            assert!(PAGE.contains(place) && !text.contains(place), "{place}");
        }
        assert!(!text.contains("http://") && !text.contains("https://"), "an address");
    }
}
