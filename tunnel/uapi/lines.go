package uapi

import (
	"bytes"
	"errors"
	"io"
)

const (
	// maxLine bounds a line, without its newline. The longest in use, a preshared key's, has 78 bytes.
	maxLine = 256
	// readBuffer is how much is read at once.
	readBuffer = 16 << 10
)

// errLineTooLong says that a line was skipped; the next one can be read.
var errLineTooLong = errors.New("line too long")

// errEndlessLine ends reading.
var errEndlessLine = errors.New("endless line")

// lines reads lines of bounded length. It has a buffer of its own rather than bufio's because that one could not be erased.
type lines struct {
	r          io.Reader
	buf        []byte
	start, end int
	limit      int // of bytes that one operation, or a line that is skipped, may have
}

func newLines(r io.Reader) *lines {
	return &lines{r: r, buf: make([]byte, readBuffer), limit: maxTransaction}
}

// next returns the next line without its newline, valid until the next call. At the end it returns io.EOF, or
// io.ErrUnexpectedEOF where the last line has no newline.
func (l *lines) next() ([]byte, error) {
	tooLong, skipped := false, 0
	for seen := 0; ; {
		if i := bytes.IndexByte(l.buf[l.start+seen:l.end], '\n'); i >= 0 {
			line := l.buf[l.start : l.start+seen+i]
			l.start += seen + i + 1
			if tooLong || len(line) > maxLine {
				return nil, errLineTooLong
			}
			return line, nil
		}
		if l.end-l.start > maxLine {
			tooLong = true
			if skipped += l.end - l.start; skipped > l.limit {
				return nil, errEndlessLine
			}
			l.start = l.end
		}
		// Move the beginning of a line to the front, so that all the room behind it can be read into.
		n := copy(l.buf, l.buf[l.start:l.end])
		l.start, l.end, seen = 0, n, n
		n, err := l.r.Read(l.buf[l.end:])
		l.end += n
		if n == 0 && err != nil {
			if err == io.EOF && (tooLong || l.end > 0) {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
}

// erase overwrites all that was returned, keeping what is still to be returned.
func (l *lines) erase() {
	clear(l.buf[:l.start])
	clear(l.buf[l.end:])
}
