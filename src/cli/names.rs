//! The names of statuses and directions: those of the voice call object, and how they are typed
//! on the command line.

use clap::{ValueEnum, builder::PossibleValue};

use crate::proto::{VoiceCallDirection, VoiceCallStatus};

/// The name of a status; `None` for an unspecified one.
pub(super) const fn status(status: VoiceCallStatus) -> Option<&'static str> {
    match status {
        VoiceCallStatus::Unspecified => None,
        VoiceCallStatus::IncomingCall => Some("incoming call"),
        VoiceCallStatus::AnsweredByStaff => Some("answered by staff"),
        VoiceCallStatus::Missed => Some("missed"),
        VoiceCallStatus::AnsweredByVonage => Some("answered by vonage"),
    }
}

/// The name of a direction; `None` for an unspecified one.
pub(super) const fn direction(direction: VoiceCallDirection) -> Option<&'static str> {
    match direction {
        VoiceCallDirection::Unspecified => None,
        VoiceCallDirection::Inbound => Some("inbound"),
        VoiceCallDirection::Outbound => Some("outbound"),
    }
}

/// The status with this name.
pub(super) fn parse_status(name: &str) -> Option<VoiceCallStatus> {
    let mut all = VoiceCallStatus::value_variants().iter().copied();
    all.find(|one| status(*one) == Some(name))
}

/// The direction with this name.
pub(super) fn parse_direction(name: &str) -> Option<VoiceCallDirection> {
    let mut all = VoiceCallDirection::value_variants().iter().copied();
    all.find(|one| direction(*one) == Some(name))
}

/// The names of all statuses, for messages.
pub(super) fn statuses() -> String {
    listed(
        VoiceCallStatus::value_variants()
            .iter()
            .copied()
            .filter_map(status),
    )
}

/// The names of all directions, for messages.
pub(super) fn directions() -> String {
    listed(
        VoiceCallDirection::value_variants()
            .iter()
            .copied()
            .filter_map(direction),
    )
}

fn listed(names: impl Iterator<Item = &'static str>) -> String {
    let names: Vec<_> = names.map(|name| format!("{name:?}")).collect();
    names.join(", ")
}

/// On the command line the words of a name are joined by hyphens, which need no quotes. The
/// names of the voice call object are accepted too.
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
    fn the_names_are_those_of_the_domain() {
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
