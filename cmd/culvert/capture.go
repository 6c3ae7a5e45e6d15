package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"culvert/cmd/culvert/summary"
	"culvert/control"
	"culvert/tunnel/capture"
)

func (p *program) capture() *cobra.Command {
	var o control.CaptureOptions
	var file string
	var length time.Duration
	var asText bool
	cmd := &cobra.Command{
		Use:   "capture NAME [INTERFACE]",
		Short: "show or record the packets inside a tunnel",
		Long: `Usage: culvert capture NAME [INTERFACE] [-w FILE] [-c N] [--duration D] [-s BYTES] [--text]

Shows the packets that pass inside a tunnel of the instance NAME, before they are encrypted and after they are decrypted,
each with the peer it goes to or comes from. INTERFACE is needed where the instance has several tunnels.

On a terminal each packet is a line. Otherwise the output is a pcapng file:
  culvert capture office | tcpdump -nr -
  ssh gateway culvert capture office | wireshark -k -i -
  culvert capture office -w office.pcapng --duration 1m

  -w, --write FILE     write pcapng to FILE, which only its owner can read; - is the standard output
  -c, --count N        end after N packets
      --duration D     end after this time, such as 30s
  -s, --snaplen BYTES  record the first BYTES of each packet (default: all)
      --text           print a line for each packet also where the output is no terminal

Ctrl-C ends it. Packets are what the tunnel protects, in clear: keep files as secret as that is. Outbound packets are seen as
the kernel hands them over, up to 64 KiB long and with their checksum still to be made. Where reading is too slow packets
are left out and counted; the tunnel is never slowed.
`,
		Args: needArgs("NAME", "[INTERFACE]"),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case length < 0, cmd.Flags().Changed("duration") && length == 0:
				return &usageError{fmt.Sprintf("--duration %v is no time to capture for", length), "culvert capture"}
			case o.Snap < 0, cmd.Flags().Changed("snaplen") && o.Snap == 0:
				return &usageError{fmt.Sprintf("--snaplen %d leaves nothing of a packet", o.Snap), "culvert capture"}
			case cmd.Flags().Changed("count") && o.Packets == 0:
				return &usageError{"--count 0 captures nothing", "culvert capture"}
			case cmd.Flags().Changed("write") && file == "":
				return &usageError{"--write needs a file's name", "culvert capture"}
			case file != "" && asText:
				return &usageError{"--text prints lines, and --write writes a file: use one of them", "culvert capture"}
			case file == "-" && isTerminal(p.stdout):
				return &usageError{"a capture is nothing for a terminal: leave -w out, or send the output elsewhere", "culvert capture"}
			}
			o.Seconds = length.Seconds()
			if len(args) == 2 {
				o.Interface = args[1]
			}
			asText = asText || file == "" && isTerminal(p.stdout)
			return p.runCapture(p.instanceName(args[0]), o, file, asText)
		},
	}
	cmd.Flags().StringVarP(&file, "write", "w", "", "")
	cmd.Flags().Uint64VarP(&o.Packets, "count", "c", 0, "")
	cmd.Flags().DurationVar(&length, "duration", 0, "")
	cmd.Flags().IntVarP(&o.Snap, "snaplen", "s", 0, "")
	cmd.Flags().BoolVar(&asText, "text", false, "")
	return cmd
}

// runCapture captures to its end, and tells how much that was.
func (p *program) runCapture(name string, o control.CaptureOptions, file string, asText bool) (err error) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	defer signal.Stop(signals)
	stream, err := p.ask(name).Capture(context.Background(), o)
	if err != nil {
		return p.callError(name, err)
	}
	defer stream.Close()
	to := p.stdout
	if file != "" && file != "-" {
		f, err := createCapture(file)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		to = f
	}
	done := make(chan struct{})
	defer close(done)
	go func() {
		select {
		case <-signals:
			signal.Stop(signals) // the second ends the program at once
			stream.Stop()
		case <-done:
		}
	}()
	c := &copying{from: stream, to: bufio.NewWriterSize(to, 64<<10), asText: asText}
	err = c.run()
	unit := "packets"
	if c.packets == 1 {
		unit = "packet"
	}
	fmt.Fprintf(p.stderr, "%d %s, %d dropped\n", c.packets, unit, c.dropped)
	return err
}

// createCapture opens a file for a capture: a new one, or an own regular one, that others cannot read.
func createCapture(path string) (*os.File, error) {
	// Without O_NONBLOCK opening a named pipe could wait for ever.
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
	if errors.Is(err, syscall.ELOOP) {
		return nil, fmt.Errorf("%s is a symbolic link, and a capture is not written through one", path)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot write the capture: %w", err)
	}
	if err := prepareCapture(f); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func prepareCapture(f *os.File) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file, and a capture is written to nothing else", f.Name())
	}
	if sys, uid := st.Sys().(*syscall.Stat_t), os.Geteuid(); int(sys.Uid) != uid {
		return fmt.Errorf("%s belongs to uid %d, not to uid %d: its owner could read the capture", f.Name(), sys.Uid, uid)
	}
	if err := f.Chmod(0o600); err != nil {
		return err
	}
	return f.Truncate(0)
}

// captureSource is where a capture comes from.
type captureSource interface {
	io.Reader
	Buffered() int // bytes that can be read without waiting
}

// copying takes a capture from the daemon to where the user wants it.
type copying struct {
	from    captureSource
	to      *bufio.Writer
	asText  bool
	packets uint64
	dropped uint64
	line    []byte
}

// errCutShort means that the capture's statistics, which are last, did not come.
var errCutShort = errors.New("the capture was cut short: the daemon has gone, or waited too long to be read from")

func (c *copying) run() error {
	blocks := capture.NewReader(c.from)
	var pending uint64 // drops before the packets so far
	for {
		b, err := blocks.Next()
		switch {
		case err == nil:
		case err == io.EOF && blocks.Ended():
			return c.to.Flush()
		case err == io.EOF, err == io.ErrUnexpectedEOF, errors.Is(err, syscall.ECONNRESET):
			c.dropped = pending
			return errors.Join(c.to.Flush(), errCutShort)
		default:
			return errors.Join(c.to.Flush(), err)
		}
		switch b.Kind {
		case capture.KindPacket:
			c.packets++
			pending += b.Packet.Dropped
		case capture.KindStatistics:
			c.dropped = b.Statistics.Dropped
		}
		if err := c.block(b, blocks); err != nil {
			return err
		}
		if c.from.Buffered() == 0 {
			if err := c.to.Flush(); err != nil {
				return err
			}
		}
	}
}

// block writes one block, or a packet's line.
func (c *copying) block(b capture.Block, blocks *capture.Reader) error {
	if !c.asText {
		_, err := c.to.Write(b.Raw)
		return err
	}
	if b.Kind != capture.KindPacket {
		return nil
	}
	p := b.Packet
	c.line = p.At.AppendFormat(c.line[:0], "15:04:05.000000 ")
	c.line = append(c.line, direction(p)...)
	c.line = append(c.line, ": "...)
	c.line = summary.Append(c.line, blocks.Layer(), p.Data, p.Length)
	_, err := c.to.Write(append(c.line, '\n'))
	return err
}

// direction is what stands for a packet's direction and peer. Names are the configuration's, which may hold anything.
func direction(p capture.Packet) string {
	switch {
	case p.Comment != "":
		return strings.Map(func(r rune) rune {
			if unicode.IsPrint(r) {
				return r
			}
			return '?'
		}, p.Comment)
	case p.Out:
		return "out"
	}
	return "in"
}
