package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"culvert/internal/lab"
)

// agentArgument makes this program an agent: a process inside a namespace that makes load and measures it. It is told
// what to do over its standard input and answers on its standard output, so control traffic crosses no network.
const agentArgument = "agent"

// request is one line to an agent; it answers each before it reads the next.
type request struct {
	Op   string
	Args json.RawMessage
}

// response is an agent's answer.
type response struct {
	Error  string `json:",omitempty"`
	Result json.RawMessage
}

// operation takes its arguments as JSON and returns what the answer is made of.
type operation func(args json.RawMessage) (any, error)

// operations are what an agent can do, by name.
type operations map[string]operation

func (o operations) answer(req request) (resp response) {
	f, ok := o[req.Op]
	if !ok {
		return response{Error: fmt.Sprintf("there is no operation %q", req.Op)}
	}
	result, err := f(req.Args)
	if err == nil {
		resp.Result, err = json.Marshal(result)
	}
	if err != nil {
		return response{Error: err.Error()}
	}
	return resp
}

// operationOf makes an operation of a function of one argument.
func operationOf[A, R any](f func(A) (R, error)) operation {
	return func(raw json.RawMessage) (any, error) {
		var args A
		if err := json.Unmarshal(raw, &args); err != nil {
			return nil, err
		}
		return f(args)
	}
}

// none stands for no arguments, or no result.
type none struct{}

// serveAgent carries out requests until its input ends.
func serveAgent(in io.Reader, out io.Writer) error {
	var tcp tcpLoad
	var udp udpSink
	var answers answerer
	var flooded victim
	var tunnelEnd partner
	var flooder attacker
	var switched frameSwitch
	var stationEnd framePartner
	var strangers crowd
	defer tcp.stop(none{})
	defer answers.stop(none{})
	defer func() { _ = udp.close() }()
	defer flooded.close()
	defer tunnelEnd.close()
	defer flooder.close()
	defer switched.close()
	defer stationEnd.close()
	defer strangers.close()
	operations := operations{
		"tcp-listen":      operationOf(tcp.listen),
		"tcp-connect":     operationOf(tcp.connect),
		"tcp-start":       operationOf(tcp.start),
		"tcp-count":       operationOf(tcp.count),
		"tcp-end":         operationOf(tcp.end),
		"tcp-stop":        operationOf(tcp.stop),
		"requests-answer": operationOf(answers.listen),
		"requests-make":   operationOf(makeRequests),
		"requests-stop":   operationOf(answers.stop),
		"udp-listen":      operationOf(udp.listen),
		"udp-result":      operationOf(udp.result),
		"udp-send":        operationOf(sendUDP),
		"ping":            operationOf(ping),

		"handshake-cost":     operationOf(handshakeCost),
		"handshake-initiate": operationOf(engineInitiates),
		"handshake-respond":  operationOf(engineResponds),
		"handshake-start":    operationOf(startUp),

		"flood-victim":   operationOf(flooded.start),
		"flood-begin":    operationOf(flooded.begin),
		"flood-end":      operationOf(flooded.end),
		"flood-partner":  operationOf(tunnelEnd.start),
		"flood-traffic":  operationOf(tunnelEnd.traffic),
		"flood-attacker": operationOf(flooder.prepare),
		"flood-send":     operationOf(flooder.send),
		"flood-join":     operationOf(join),

		"frames-switch":  operationOf(switched.start),
		"frames-begin":   operationOf(switched.begin),
		"frames-end":     operationOf(switched.end),
		"frames-partner": operationOf(stationEnd.start),
		"frames-traffic": operationOf(stationEnd.traffic),
		"frames-crowd":   operationOf(strangers.join),
		"frames-send":    operationOf(strangers.send),

		"cores-carry": operationOf(carry),

		"setup-run": operationOf(setUp),

		"peers-join": operationOf(joinAll),
	}
	requests, responses := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var req request
		if err := requests.Decode(&req); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read request: %w", err)
		}
		if err := responses.Encode(operations.answer(req)); err != nil {
			return fmt.Errorf("write response: %w", err)
		}
	}
}

// agent is the other side: a handle on an agent's process. It serves one call at a time.
type agent struct {
	requests  *json.Encoder
	responses *json.Decoder
	stop      func()
	pid       int
	stderr    bytes.Buffer
}

func newAgent(in io.Writer, out io.Reader, stop func()) *agent {
	return &agent{requests: json.NewEncoder(in), responses: json.NewDecoder(out), stop: stop}
}

// startAgent starts an agent on the host; it ends with the stage.
func startAgent(s *stage, host *lab.Host) (*agent, error) {
	a, err := launchAgent(s, host.Start)
	if err != nil {
		return nil, fmt.Errorf("on %s: %w", host.Name, err)
	}
	return a, nil
}

// launchAgent starts an agent by way of start; it ends with the stage.
func launchAgent(s *stage, start func(*exec.Cmd) error) (*agent, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(s.Context())
	cmd := exec.CommandContext(ctx, program, agentArgument)
	in, err := cmd.StdinPipe()
	if err != nil {
		cancel()
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		cancel()
		return nil, err
	}
	a := newAgent(in, out, cancel)
	cmd.Stderr = &a.stderr
	if err := start(cmd); err != nil {
		cancel()
		return nil, fmt.Errorf("start an agent: %w", err)
	}
	a.pid = cmd.Process.Pid
	s.Cleanup(func() {
		cancel()
		_ = cmd.Wait() // killed
	})
	return a, nil
}

// callMargin is how much longer than told an agent may take before it counts as stuck.
const callMargin = 30 * time.Second

// call has an agent do something that lasts about that long.
func call[R any](a *agent, op string, args any, lasting time.Duration) (result R, err error) {
	watch := time.AfterFunc(lasting+callMargin, a.stop)
	defer watch.Stop()
	raw, err := json.Marshal(args)
	if err != nil {
		return result, err
	}
	var resp response
	if err = a.requests.Encode(request{op, raw}); err == nil {
		err = a.responses.Decode(&resp)
	}
	switch {
	case err != nil:
		return result, fmt.Errorf("%s: the agent is gone: %w", op, err)
	case resp.Error != "":
		return result, fmt.Errorf("%s: %s", op, resp.Error)
	}
	return result, json.Unmarshal(resp.Result, &result)
}
