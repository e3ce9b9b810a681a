//! Page tokens, times and texts.

use proptest::{collection::vec, option, prelude::*};
use uuid::Uuid;
use voicecall::{
    api::tokens::{page_token, page_token::ListKey},
    domain::{
        Identifier, PhoneNumber, Summary, Timestamp, Url,
        list::{Order, OrderField, PageKey},
    },
    proto::VoiceCallFilter,
};

use crate::{any_time, config};

/// Texts around the limits, with characters that matter.
fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        ".{0,70}",
        "[a-zü\u{0}-\u{20}\u{7f}-\u{a0}😀]{0,5}",
        "[aü😀]{60,68}",
    ]
}

fn any_key() -> impl Strategy<Value = PageKey> {
    (any_time(), any::<u128>()).prop_map(|(time, uid)| PageKey {
        time,
        uid: Uuid::from_u128(uid),
    })
}

fn any_list() -> impl Strategy<Value = ListKey> {
    let orders = (any::<bool>(), any::<bool>()).prop_map(|(by_update, descending)| Order {
        field: if by_update {
            OrderField::UpdatedAt
        } else {
            OrderField::CreatedAt
        },
        descending,
    });
    let filters = (any::<bool>(), vec("[ab]", 0..3), option::of(0..3)).prop_map(
        |(show_deleted, staff_uids, min_duration)| VoiceCallFilter {
            show_deleted,
            staff_uids,
            min_duration,
            ..VoiceCallFilter::default()
        },
    );
    (option::of(filters), orders).prop_map(|(filter, order)| ListKey::new(filter.as_ref(), order))
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_token_leads_back_to_its_place(key in any_key(), list in any_list()) {
        let token = page_token::encode(list, key);
        prop_assert_eq!(page_token::decode(list, &token).ok(), Some(key));
        let is_safe = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        prop_assert!(token.chars().all(is_safe), "{}", token);
    }

    #[test]
    fn a_token_of_another_list_is_refused(key in any_key(), list in any_list(), other in any_list()) {
        let token = page_token::encode(list, key);
        prop_assert_eq!(page_token::decode(other, &token).is_ok(), list == other);
    }

    #[test]
    fn a_truncated_or_corrupt_token_is_refused(key in any_key(), list in any_list(), other in any::<char>()) {
        let token = page_token::encode(list, key);
        for len in 0..token.len() {
            prop_assert!(page_token::decode(list, &token[..len]).is_err());
            prop_assert!(page_token::decode(list, &token[len + 1..]).is_err());
        }
        for place in 0..token.len() {
            let typo = if other.is_ascii() { other } else { 'A' };
            for typo in [typo, 'A', '_', '=', ' ', 'ü'] {
                let mut changed: Vec<char> = token.chars().collect();
                if changed[place] == typo {
                    continue;
                }
                changed[place] = typo;
                let changed: String = changed.into_iter().collect();
                prop_assert!(page_token::decode(list, &changed).is_err(), "{}", changed);
            }
        }
    }

    #[test]
    fn a_text_that_is_no_token_is_refused(list in any_list(), text in ".{0,80}") {
        prop_assert!(page_token::decode(list, &text).is_err());
    }

    #[test]
    fn times_come_back_and_keep_their_order(a in any_time(), b in any_time(), finer in 0..1000) {
        let (seconds, nanos) = a.parts();
        prop_assert_eq!(Timestamp::from_micros(a.micros()), Ok(a));
        prop_assert_eq!(Timestamp::from_parts(seconds, nanos), Ok(a));
        prop_assert_eq!(Timestamp::from_parts(seconds, nanos + finer), Ok(a));
        prop_assert_eq!(a.cmp(&b), a.parts().cmp(&b.parts()));
    }

    #[test]
    fn times_are_taken_in_range_only(seconds: i64, nanos: i32) {
        let range = Timestamp::MIN.parts().0..=Timestamp::MAX.parts().0;
        let good = range.contains(&seconds) && (0..1_000_000_000).contains(&nanos);
        prop_assert_eq!(Timestamp::from_parts(seconds, nanos).is_ok(), good);
    }

    #[test]
    fn names_are_taken_as_they_are_or_not_at_all(text in any_text()) {
        let good = (1..=64).contains(&text.chars().count()) && !text.contains(char::is_control);
        let name = Identifier::new(text.clone());
        prop_assert_eq!(name.is_ok(), good);
        prop_assert_eq!(PhoneNumber::new(text.clone()).is_ok(), good);
        if let Ok(name) = name {
            prop_assert_eq!(name.as_str(), text);
        }
    }

    #[test]
    fn summaries_are_taken_as_they_are_or_not_at_all(text in any_text()) {
        let control = |c: char| c.is_control() && c != '\n' && c != '\t';
        let summary = Summary::new(text.clone());
        prop_assert_eq!(summary.is_ok(), !text.is_empty() && !text.contains(control));
        if let Ok(summary) = summary {
            prop_assert_eq!(summary.as_str(), text);
        }
    }

    #[test]
    fn urls_of_every_shape_are_taken_as_they_are(
        url in "(https?|HTTPS?)://([a-z0-9]{1,8}@)?[a-z0-9-]{1,20}(\\.[a-z]{2,5}){0,2}(:[0-9]{1,4})?(/[!-~]{0,30})?"
    ) {
        let taken = Url::new(url.clone());
        prop_assert_eq!(taken.map(|taken| taken.as_str().to_owned()), Ok(url));
    }

    #[test]
    fn no_text_that_is_taken_for_a_url_could_be_mistaken(text in "(https?:)?/{0,3}\\PC{0,20}") {
        if let Ok(url) = Url::new(text) {
            let lower = url.as_str().to_lowercase();
            prop_assert!(lower.starts_with("http://") || lower.starts_with("https://"));
            prop_assert!(!lower.contains(char::is_whitespace) && !lower.contains(char::is_control));
        }
    }
}
