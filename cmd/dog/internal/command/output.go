package command

import (
	"bufio"
	"bytes"
	"io"
)

// outputBuffer is how much of the output waits when it is no terminal: enough
// that what a command prints about a failure comes before its other output.
const outputBuffer = 64 << 10

// An output is standard output: buffered, but line by line on a terminal.
type output struct {
	*bufio.Writer
	terminal bool
}

func newOutput(w io.Writer, terminal bool) *output {
	return &output{Writer: bufio.NewWriterSize(w, outputBuffer), terminal: terminal}
}

// Write implements io.Writer.
func (o *output) Write(p []byte) (int, error) {
	n, err := o.Writer.Write(p)
	if err == nil && o.terminal && bytes.IndexByte(p, '\n') >= 0 {
		err = o.Flush()
	}
	return n, err
}

// Show makes a part of a line visible: on a terminal at once.
func (o *output) Show() {
	if o.terminal {
		o.Flush() // the error stays with the writer
	}
}
