//! The reference's words for statuses and directions, and how they are typed.

use clap::{ValueEnum, builder::PossibleValue};

use crate::proto::{VoiceCallDirection, VoiceCallStatus};

/// The word for a status; `None` for one that is not given.
pub(super) const fn status(status: VoiceCallStatus) -> Option<&'static str> {
    match status {
        VoiceCallStatus::Unspecified => None,
        VoiceCallStatus::IncomingCall => Some("incoming call"),
        VoiceCallStatus::AnsweredByStaff => Some("answered by staff"),
        VoiceCallStatus::Missed => Some("missed"),
        VoiceCallStatus::AnsweredByVonage => Some("answered by vonage"),
    }
}

/// The word for a direction; `None` for one that is not given.
pub(super) const fn direction(direction: VoiceCallDirection) -> Option<&'static str> {
    match direction {
        VoiceCallDirection::Unspecified => None,
        VoiceCallDirection::Inbound => Some("inbound"),
        VoiceCallDirection::Outbound => Some("outbound"),
    }
}

/// The status with this word.
pub(super) fn status_of(word: &str) -> Option<VoiceCallStatus> {
    let mut all = VoiceCallStatus::value_variants().iter().copied();
    all.find(|one| status(*one) == Some(word))
}

/// The direction with this word.
pub(super) fn direction_of(word: &str) -> Option<VoiceCallDirection> {
    let mut all = VoiceCallDirection::value_variants().iter().copied();
    all.find(|one| direction(*one) == Some(word))
}

/// All words of statuses, for messages.
pub(super) fn statuses() -> String {
    listed(
        VoiceCallStatus::value_variants()
            .iter()
            .copied()
            .filter_map(status),
    )
}

/// All words of directions, for messages.
pub(super) fn directions() -> String {
    listed(
        VoiceCallDirection::value_variants()
            .iter()
            .copied()
            .filter_map(direction),
    )
}

fn listed(words: impl Iterator<Item = &'static str>) -> String {
    let words: Vec<_> = words.map(|word| format!("{word:?}")).collect();
    words.join(", ")
}

/// On the command line words are joined by hyphens, which need no quotes; as
/// they are will do too.
impl ValueEnum for VoiceCallStatus {
    fn value_variants<'a>() -> &'a [Self] {
        &[
            Self::IncomingCall,
            Self::AnsweredByStaff,
            Self::Missed,
            Self::AnsweredByVonage,
        ]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let typed = match self {
            Self::Unspecified => return None,
            Self::IncomingCall => "incoming-call",
            Self::AnsweredByStaff => "answered-by-staff",
            Self::Missed => "missed",
            Self::AnsweredByVonage => "answered-by-vonage",
        };
        Some(PossibleValue::new(typed).aliases(status(*self)))
    }
}

impl ValueEnum for VoiceCallDirection {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Inbound, Self::Outbound]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        direction(*self).map(PossibleValue::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Direction, Status};

    #[test]
    fn the_words_are_those_of_the_domain() {
        let statuses: Vec<_> = VoiceCallStatus::value_variants()
            .iter()
            .filter_map(|one| status(*one))
            .collect();
        assert_eq!(statuses, Status::ALL.each_ref().map(Status::word));
        let directions: Vec<_> = VoiceCallDirection::value_variants()
            .iter()
            .filter_map(|one| direction(*one))
            .collect();
        assert_eq!(directions, Direction::ALL.each_ref().map(Direction::word));
    }
}
