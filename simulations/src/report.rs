//! What a run has shown.

use std::fmt;
use std::time::Duration;

/// Figures of one run; times count from the publication, or from the end of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Nodes but the publishers.
    pub followers: usize,
    /// Those that show every published head at the end.
    pub complete: usize,
    /// Virtual time until half of them did.
    pub half: Option<Duration>,
    /// Until 99 % of them did.
    pub most: Option<Duration>,
    /// Until all of them did.
    pub all: Option<Duration>,
    /// How long messages were counted: from the publication on.
    pub counted: Duration,
    /// Every frame that any node sent in that time.
    pub messages: u64,
    /// The bytes of them.
    pub bytes: u64,
    /// Frames of the whole run that never arrived.
    pub lost: u64,
    /// Neighbours that were parted from; none should be.
    pub parted: u64,
    /// Events of the whole run.
    pub events: u64,
    /// Nodes.
    pub nodes: usize,
}

impl Report {
    /// Frames that a node sent in the time counted, on average, in hundredths.
    pub const fn messages_per_node_hundredths(&self) -> u64 {
        self.messages * 100 / self.nodes as u64
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = |time: Option<Duration>| match time {
            Some(time) => format!("{}.{:03} s", time.as_secs(), time.subsec_millis()),
            None => "never".to_owned(),
        };
        let hundredths = self.messages_per_node_hundredths();
        writeln!(f, "followers               {}", self.followers)?;
        writeln!(f, "have it at the end      {}", self.complete)?;
        writeln!(f, "50 % have it after      {}", time(self.half))?;
        writeln!(f, "99 % have it after      {}", time(self.most))?;
        writeln!(f, "100 % have it after     {}", time(self.all))?;
        let counted = self.counted.as_secs();
        writeln!(
            f,
            "messages a node in {counted} s {}.{:02}",
            hundredths / 100,
            hundredths % 100
        )?;
        writeln!(
            f,
            "bytes a node in {counted} s    {}",
            self.bytes / self.nodes as u64
        )?;
        writeln!(f, "messages lost           {}", self.lost)?;
        writeln!(f, "neighbours parted from  {}", self.parted)?;
        write!(f, "events                  {}", self.events)
    }
}
