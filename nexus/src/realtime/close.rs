//! Why the server closes a connection: one code and one reason for each. Pure.

/// Why the server closes a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// This pod stops; the client reconnects, to any pod, after the delay it was told.
    Drain,
    /// What came is no WebSocket frame of a client.
    UnreadableFrame,
    /// The client sent a binary frame; commands are JSON text.
    BinaryFrame,
    /// The client sent text that is no UTF-8.
    InvalidText,
    /// The client sent what is no packet of Socket.IO, or one that has no place there.
    InvalidPacket,
    /// The client sent a frame above the limit.
    FrameTooLarge,
    /// This pod has received too much that it has not worked off; the client comes back.
    Overload,
    /// The token was refused, or has expired and was not refreshed.
    Unauthenticated,
    /// The token was revoked.
    Revoked,
    /// The client did not authenticate within the deadline.
    AuthenticationLate,
    /// Nothing came from the client for two heartbeat intervals.
    PeerSilent,
    /// The client has come into more rooms than one connection follows.
    TooManyRooms,
    /// What was missed is no longer kept, and a client of plain events may pass over the one that states it. It comes back
    /// with that event's position.
    Gap,
    /// The person has as many connections as allowed.
    TooManyConnections,
    /// The client took nothing for the whole send deadline. What it misses is in the log:
    /// it resumes with its position.
    PeerSlow,
}

impl Close {
    /// The WebSocket close code. Those below 4000 are RFC 6455's and IANA's; those from
    /// 4000 on are private, here after the HTTP status of the nearest meaning.
    pub fn code(self) -> u16 {
        match self {
            Self::Drain => 1012,
            Self::UnreadableFrame => 1002,
            Self::BinaryFrame => 1003,
            Self::InvalidText => 1007,
            Self::FrameTooLarge => 1009,
            Self::Overload => 1013,
            Self::InvalidPacket => 4400,
            Self::Unauthenticated => 4401,
            Self::AuthenticationLate => 4403,
            Self::PeerSilent => 4408,
            Self::TooManyRooms => 4409,
            Self::Revoked => 4410,
            Self::Gap => 4416,
            Self::TooManyConnections => 4420,
            Self::PeerSlow => 4429,
        }
    }

    /// The reason, for the close frame and as metric label.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Drain => "drain",
            Self::UnreadableFrame => "unreadable_frame",
            Self::BinaryFrame => "binary_frame",
            Self::InvalidText => "invalid_text",
            Self::FrameTooLarge => "frame_too_large",
            Self::Overload => "overloaded",
            Self::InvalidPacket => "invalid_packet",
            Self::Unauthenticated => "unauthenticated",
            Self::AuthenticationLate => "authentication_late",
            Self::PeerSilent => "peer_silent",
            Self::TooManyRooms => "too_many_rooms",
            Self::Revoked => "revoked",
            Self::Gap => "gap",
            Self::TooManyConnections => "too_many_connections",
            Self::PeerSlow => "peer_slow",
        }
    }
}
