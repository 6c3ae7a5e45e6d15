package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"rsc.io/qr"
)

// picture is how a text is shown besides.
type picture struct {
	terminal bool
	png, svg string
}

func (q *picture) flags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&q.terminal, "qr", false, "")
	cmd.Flags().StringVar(&q.png, "png", "", "")
	cmd.Flags().StringVar(&q.svg, "svg", "", "")
}

// choose has a code drawn where the output is a terminal, unless something else was asked for. One that would not fit is left out: in wrapped
// lines nothing can be scanned.
func (q *picture) choose(cmd *cobra.Command, w io.Writer, text string) {
	f, ok := w.(*os.File)
	if cmd.Flags().Changed("qr") || q.png != "" || q.svg != "" || !ok || !isTerminal(w) {
		return
	}
	code, err := qr.Encode(text, qr.L)
	if err != nil {
		return
	}
	columns, _ := windowSize(f)
	q.terminal = columns == 0 || columns >= code.Size+2*quiet
}

// draw shows a secret text as a QR code. Files are new ones, of mode 0600.
func (q *picture) draw(w io.Writer, text string) error {
	if !q.terminal && q.png == "" && q.svg == "" {
		return nil
	}
	code, err := qr.Encode(text, qr.L)
	if err != nil {
		return fmt.Errorf("cannot make a QR code: %w", err)
	}
	if q.png != "" {
		if err := writeNew(q.png, code.PNG()); err != nil {
			return err
		}
	}
	if q.svg != "" {
		if err := writeNew(q.svg, []byte(svgOf(code))); err != nil {
			return err
		}
	}
	if q.terminal {
		_, err = io.WriteString(w, blocksOf(code))
	}
	return err
}

// writeNew makes a file that nobody else can read. What is there already is left alone.
func writeNew(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if _, err = f.Write(content); err == nil {
		err = f.Sync()
	}
	if closing := f.Close(); err == nil {
		err = closing
	}
	if err != nil {
		os.Remove(path)
	}
	return err
}

// quiet is the margin around a QR code, in modules (ISO/IEC 18004 section 6.3.8).
const quiet = 4

// blocksOf draws a code for a terminal, two rows a line, light on dark: white where the code is light, so that it reads on a
// background of either colour.
func blocksOf(code *qr.Code) string {
	var b strings.Builder
	dark := func(x, y int) bool { return x >= 0 && y >= 0 && x < code.Size && y < code.Size && code.Black(x, y) }
	for y := -quiet; y < code.Size+quiet; y += 2 {
		b.WriteString("\x1b[40;97m")
		for x := -quiet; x < code.Size+quiet; x++ {
			b.WriteString(map[[2]bool]string{{false, false}: "█", {false, true}: "▀", {true, false}: "▄", {true, true}: " "}[[2]bool{dark(x, y), dark(x, y+1)}])
		}
		b.WriteString("\x1b[0m\n")
	}
	return b.String()
}

// svgOf draws a code as one path of squares.
func svgOf(code *qr.Code) string {
	var b strings.Builder
	n := code.Size + 2*quiet
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" shape-rendering="crispEdges">`, n, n)
	fmt.Fprintf(&b, `<path fill="#fff" d="M0 0h%dv%dH0z"/><path d="`, n, n)
	for y := range code.Size {
		for x := range code.Size {
			if code.Black(x, y) {
				fmt.Fprintf(&b, "M%d %dh1v1h-1z", x+quiet, y+quiet)
			}
		}
	}
	b.WriteString("\"/></svg>\n")
	return b.String()
}
