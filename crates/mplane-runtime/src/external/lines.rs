//! Lines of a pipe, as they come, with bounds on the line and on everything.

use std::io;

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

use super::limits::LINE_BYTES;

/// Reads lines.
pub(super) struct Lines<R> {
    from: BufReader<R>,
    /// What has been read of a line that is not complete.
    line: Vec<u8>,
    /// Bytes that may still come.
    left: u64,
    /// What happens to a line that is too long.
    long: Long,
}

/// What happens to a line that is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Long {
    /// It is an error.
    Refuse,
    /// It is given as several lines: nothing of a text for people is lost.
    Split,
}

/// A line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Its content, without the line feed.
    pub(super) content: Vec<u8>,
    /// Whether it ended with a line feed, and not with the pipe.
    pub(super) is_whole: bool,
}

/// Lines that cannot be read on.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadLineError {
    /// A line is too long.
    #[error("a line has at most {LINE_BYTES} bytes")]
    Long,
    /// All lines together are too long.
    #[error("there are too many bytes")]
    Flood,
    /// The pipe is broken.
    #[error("the pipe cannot be read")]
    Read(#[source] io::Error),
}

impl<R: AsyncRead + Unpin> Lines<R> {
    /// Reads lines of at most `limit` bytes together.
    pub(super) fn new(from: R, limit: u64, long: Long) -> Self {
        Self { from: BufReader::new(from), line: Vec::new(), left: limit, long }
    }

    /// Returns the next line; `None` at the end. A call that is dropped loses nothing.
    pub(super) async fn next(&mut self) -> Result<Option<Line>, ReadLineError> {
        loop {
            let chunk = self.from.fill_buf().await.map_err(ReadLineError::Read)?;
            if chunk.is_empty() {
                let content = std::mem::take(&mut self.line);
                let line = Line { content, is_whole: false };
                return Ok(Some(line).filter(|line| !line.content.is_empty()));
            }
            let feed = chunk.iter().position(|byte| *byte == b'\n');
            let content = chunk.get(..feed.unwrap_or(chunk.len())).unwrap_or(chunk);
            let used = content.len() + usize::from(feed.is_some());
            self.left = (self.left)
                .checked_sub(used.try_into().unwrap_or(u64::MAX))
                .ok_or(ReadLineError::Flood)?;
            self.line.extend_from_slice(content);
            self.from.consume(used);
            let is_long = self.line.len() > LINE_BYTES;
            if is_long && self.long == Long::Refuse {
                return Err(ReadLineError::Long);
            }
            if feed.is_some() || is_long {
                let content = std::mem::take(&mut self.line);
                return Ok(Some(Line { content, is_whole: feed.is_some() }));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(input: &[u8], limit: u64, long: Long) -> (Vec<Line>, String) {
        let mut lines = Lines::new(input, limit, long);
        let mut read = Vec::new();
        loop {
            match lines.next().await {
                Ok(Some(line)) => read.push(line),
                Ok(None) => return (read, "the end".into()),
                Err(error) => return (read, error.to_string()),
            }
        }
    }

    #[tokio::test]
    async fn lines_end_with_a_line_feed_or_with_the_pipe() {
        let (lines, end) = read(b"one\n\ntwo", 100, Long::Refuse).await;
        let line = |content: &[u8], is_whole| Line { content: content.into(), is_whole };
        assert_eq!(lines, [line(b"one", true), line(b"", true), line(b"two", false)]);
        assert_eq!(end, "the end");
    }

    #[tokio::test]
    async fn lines_and_all_of_them_have_a_limit() {
        let mut input = vec![b'x'; LINE_BYTES];
        input.push(b'\n');
        let (lines, end) = read(&input, u64::MAX, Long::Refuse).await;
        assert_eq!((lines.len(), end.as_str()), (1, "the end"));
        input.insert(0, b'x');
        let (lines, end) = read(&input, u64::MAX, Long::Refuse).await;
        assert_eq!((lines.len(), end.as_str()), (0, "a line has at most 1048576 bytes"));
        let (_, end) = read(&input, u64::MAX, Long::Split).await;
        assert_eq!(end, "the end");
        let (lines, end) = read(b"a\nb\nc", 4, Long::Refuse).await;
        assert_eq!((lines.len(), end.as_str()), (2, "there are too many bytes"));
    }
}
