//! Writing the packet log, in a thread of its own: the emulator never waits for a disk.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use super::{Description, Fate, HEAD_BYTES, RECORDS, Record, describe};

/// What the writer is told.
pub(crate) enum Entry {
    /// What became of packets.
    Records(Vec<Record>),
    /// Everything so far is to be in the file; answered when it is.
    Flush(Sender<()>),
}

/// The thread that writes.
#[derive(Debug)]
pub(crate) struct Writer {
    thread: JoinHandle<io::Result<()>>,
}

impl Writer {
    /// Starts to write a log. The thread ends when the sender is dropped.
    pub(crate) fn start(
        file: File,
        description: &Description,
    ) -> io::Result<(Self, Sender<Entry>)> {
        let mut file = BufWriter::new(file);
        file.write_all(&describe(description))?;
        file.flush()?;
        let (sender, entries) = channel();
        let thread = std::thread::Builder::new()
            .name("lab-log".to_owned())
            .spawn(move || write(file, &entries))?;
        Ok((Self { thread }, sender))
    }

    /// Waits until all is written.
    pub(crate) fn ended(self) -> io::Result<()> {
        self.thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the writer panicked")))
    }
}

/// Writes what comes.
fn write(mut file: BufWriter<File>, entries: &Receiver<Entry>) -> io::Result<()> {
    let mut written = 0;
    let mut unlogged = 0;
    // After a failure the rest is taken all the same, so that nobody waits for an answer.
    let mut result = Ok(());
    for entry in entries {
        match entry {
            Entry::Records(records) => {
                for record in records {
                    if record.fate.is_packet() && written >= RECORDS {
                        unlogged += 1;
                    } else if result.is_ok() {
                        result = file.write_all(&record.encode());
                        written += 1;
                    }
                }
            }
            Entry::Flush(done) => {
                if result.is_ok() {
                    result = file.flush();
                }
                // Who asked may have gone.
                let _ = done.send(());
            }
        }
    }
    result?;
    if unlogged > 0 {
        file.write_all(&count(Fate::Unlogged, 0, false, unlogged).encode())?;
    }
    file.flush()
}

/// A record that stands for a number of packets.
pub(crate) fn count(fate: Fate, link: u16, is_back: bool, number: u64) -> Record {
    Record {
        fate,
        is_copy: false,
        is_held: false,
        is_back,
        link,
        length: 0,
        sequence: number,
        arrived_ns: 0,
        arrived_utc_ns: 0,
        intended_ns: None,
        departed_ns: None,
        head_length: 0,
        head: [0; HEAD_BYTES],
    }
}
