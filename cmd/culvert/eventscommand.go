package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"culvert/control"
)

func (p *program) eventsCommand() *cobra.Command {
	var asJSON bool
	var only []string
	cmd := &cobra.Command{
		Use:   "events [NAME]",
		Short: "tell what happens, as it happens",
		Long: `Usage: culvert events [NAME] [--only KIND,...] [--json]

Prints a line for each event of the instance NAME, or of all that run now, until Ctrl-C or until they have ended: instances and tunnels
that come and go, peers that connect, are lost or move, clients that join, sign in or are refused, another server in use, drift of the
network. What happened before is not told; the log has it (culvert log NAME).

  --only KIND,...   only these kinds, or groups of them: instance, tunnel, peer, client, server, drift
  --json            a JSON object a line, for programs: docs/api.md, "Events"

Programs that are to run at events stand in the configuration file, under "on".
`,
		Args: needArgs("[NAME]"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o := control.EventOptions{Kinds: only}
			if err := o.Check(); err != nil {
				return &usageError{err.Error(), cmd.CommandPath()}
			}
			names := args
			if len(names) == 0 {
				all, err := control.Names(p.runDir)
				if err != nil {
					return permissionHint(fmt.Errorf("cannot list what runs: %w", err))
				}
				names = all
			} else {
				names = []string{p.instanceName(names[0])}
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			return p.tellEvents(ctx, names, len(args) == 1, o, asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "")
	cmd.Flags().StringSliceVar(&only, "only", nil, "")
	return cmd
}

// tellEvents prints what instances tell until ctx ends, or they do. One that is not named may have ended before.
func (p *program) tellEvents(ctx context.Context, names []string, named bool, o control.EventOptions, asJSON bool) error {
	var streams []*control.EventStream
	defer func() {
		for _, s := range streams {
			s.Close()
		}
	}()
	for _, name := range names {
		s, err := p.ask(name).Events(ctx, o)
		if !named && errors.Is(err, control.ErrNotRunning) {
			continue
		}
		if err != nil {
			return p.callError(name, err)
		}
		streams = append(streams, s)
	}
	if len(streams) == 0 {
		return errors.New("nothing is running")
	}
	var printing sync.Mutex // held while an event is written, and guards failed
	var failed error
	var telling sync.WaitGroup
	for _, s := range streams {
		telling.Go(func() {
			for {
				e, err := s.Next()
				if err != nil {
					if ctx.Err() == nil && !errors.Is(err, io.EOF) {
						printing.Lock()
						failed = errors.Join(failed, err)
						printing.Unlock()
					}
					return
				}
				printing.Lock()
				writing := p.writeEvent(&e, asJSON)
				failed = errors.Join(failed, writing)
				printing.Unlock()
				if writing != nil { // nobody reads any more
					return
				}
			}
		})
	}
	telling.Wait()
	return failed
}

func (p *program) writeEvent(e *control.Event, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(p.stdout).Encode(e)
	}
	_, err := fmt.Fprintln(p.stdout, eventText(e))
	return err
}

// eventText is an event for people: one line.
func eventText(e *control.Event) string {
	words := []string{e.Time.Local().Format(time.DateTime), e.Instance}
	if e.Tunnel != "" && e.Tunnel != e.Instance {
		words = append(words, e.Tunnel)
	}
	words = append(words, e.Event)
	switch {
	case e.Client != "":
		words = append(words, e.Client)
	case e.Peer != "":
		words = append(words, e.Peer)
	case !e.PublicKey.IsZero():
		words = append(words, e.PublicKey.String())
	}
	if e.Endpoint != "" {
		words = append(words, "at", e.Endpoint)
	}
	if e.Before != "" {
		words = append(words, "before", e.Before)
	}
	if e.By != "" {
		words = append(words, "by", e.By)
	}
	if e.Missed != 0 {
		words = append(words, fmt.Sprintf("(%d events that came faster than they were read)", e.Missed))
	}
	text := strings.Join(words, " ")
	if e.Why != "" {
		text += ": " + e.Why
	}
	for _, d := range e.Drift {
		text += "; " + d.Text
	}
	return oneLine(text)
}

// oneLine leaves nothing in a text that could pass for another line, or change a terminal.
func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '?'
		}
		return r
	}, text)
}
