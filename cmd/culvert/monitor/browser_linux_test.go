package monitor

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"culvert/internal/lab"
)

// browser is a headless Chromium, spoken to by its DevTools protocol over pipes (--remote-debugging-pipe: JSON with a zero byte behind each).
type browser struct {
	t       *testing.T
	to      *os.File
	from    *bufio.Reader
	id      int
	session string
	events  []event // all that came
}

type event struct {
	ID     int             `json:"id,omitempty"`
	Method string          `json:"method,omitempty"`
	Params json.RawMessage `json:"params,omitempty"`
	Result json.RawMessage `json:"result,omitempty"`
	Error  json.RawMessage `json:"error,omitempty"`
}

// openBrowser starts one with a page of its own.
func openBrowser(t *testing.T) *browser {
	t.Helper()
	path := lab.NeedProgram(t, "chromium")
	theirIn, ourOut, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	ourIn, theirOut, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update",
		"--disable-sync", "--hide-scrollbars", "--user-data-dir="+filepath.Join(t.TempDir(), "profile"), "--remote-debugging-pipe", "about:blank")
	cmd.ExtraFiles = []*os.File{theirIn, theirOut}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirIn.Close()
	theirOut.Close()
	timeout := time.AfterFunc(2*time.Minute, func() { cmd.Process.Kill() })
	b := &browser{t: t, to: ourOut, from: bufio.NewReaderSize(ourIn, 1<<20)}
	t.Cleanup(func() {
		fmt.Fprintf(ourOut, `{"id":1000000,"method":"Browser.close"}`+"\x00")
		time.AfterFunc(5*time.Second, func() { cmd.Process.Kill() })
		cmd.Wait()
		timeout.Stop()
		ourOut.Close()
		ourIn.Close()
	})
	var target struct {
		TargetID  string `json:"targetId"`
		SessionID string `json:"sessionId"`
	}
	b.call("Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	b.call("Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &target)
	b.session = target.SessionID
	for _, domain := range []string{"Page", "Runtime", "Log", "Network"} {
		b.call(domain+".enable", nil, nil)
	}
	return b
}

func (b *browser) call(method string, params map[string]any, result any) {
	b.t.Helper()
	b.id++
	msg := map[string]any{"id": b.id, "method": method}
	if params != nil {
		msg["params"] = params
	}
	if b.session != "" {
		msg["sessionId"] = b.session
	}
	text, err := json.Marshal(msg)
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := b.to.Write(append(text, 0)); err != nil {
		b.t.Fatalf("chromium: %v", err)
	}
	for {
		line, err := b.from.ReadBytes(0)
		if err != nil {
			b.t.Fatalf("chromium: %v", err)
		}
		var e event
		if err := json.Unmarshal(bytes.TrimSuffix(line, []byte{0}), &e); err != nil {
			b.t.Fatal(err)
		}
		if e.ID != b.id {
			b.events = append(b.events, e)
			continue
		}
		if e.Error != nil {
			b.t.Fatalf("%s: %s", method, e.Error)
		}
		if result != nil {
			if err := json.Unmarshal(e.Result, result); err != nil {
				b.t.Fatal(err)
			}
		}
		return
	}
}

// eval gives what an expression of JavaScript is, as text.
func (b *browser) eval(expression string) string {
	b.t.Helper()
	var r struct {
		Result struct {
			Value any `json:"value"`
		} `json:"result"`
		Exception json.RawMessage `json:"exceptionDetails"`
	}
	b.call("Runtime.evaluate", map[string]any{"expression": expression, "returnByValue": true, "awaitPromise": true}, &r)
	if r.Exception != nil {
		b.t.Fatalf("%s: %s", expression, r.Exception)
	}
	return fmt.Sprint(r.Result.Value)
}

// await waits until an expression is true.
func (b *browser) await(expression string) {
	b.t.Helper()
	for end := time.Now().Add(60 * time.Second); b.eval(expression) != "true"; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			b.t.Fatalf("never true: %s; the page: %.3000s", expression, b.eval("document.body.innerText"))
		}
	}
}

func (b *browser) size(width, height int, dark bool) {
	b.call("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}, nil)
	scheme := "light"
	if dark {
		scheme = "dark"
	}
	b.call("Emulation.setEmulatedMedia", map[string]any{"features": []any{map[string]any{"name": "prefers-color-scheme", "value": scheme}}}, nil)
}

// picture writes a screenshot of the whole page where somebody wants to look at it: CULVERT_PICTURES names the folder.
func (b *browser) picture(name string) {
	b.t.Helper()
	var shot struct{ Data string }
	b.call("Page.captureScreenshot", map[string]any{"format": "png", "captureBeyondViewport": true}, &shot)
	png, err := base64.StdEncoding.DecodeString(shot.Data)
	if err != nil || len(png) < 5000 {
		b.t.Errorf("the picture has %d bytes: %v", len(png), err)
	}
	if folder := os.Getenv("CULVERT_PICTURES"); folder != "" {
		if err := os.WriteFile(filepath.Join(folder, name+".png"), png, 0o644); err != nil {
			b.t.Fatal(err)
		}
	}
}

// complaints are what the page did wrong: errors, and requests to anywhere but origin.
func (b *browser) complaints(origin string) (list []string) {
	b.eval("1")
	for _, e := range b.events {
		var p struct {
			Request struct{ URL string }
			Entry   struct{ Level, Text, URL string }
			Type    string
		}
		_ = json.Unmarshal(e.Params, &p)
		switch {
		case e.Method == "Runtime.exceptionThrown", e.Method == "Page.javascriptDialogOpening", e.Method == "Log.entryAdded" && p.Entry.Level == "error",
			e.Method == "Runtime.consoleAPICalled" && p.Type == "error":
			list = append(list, e.Method+": "+string(e.Params))
		case e.Method == "Network.requestWillBeSent" && !strings.HasPrefix(p.Request.URL, origin):
			list = append(list, "asked elsewhere: "+p.Request.URL)
		}
	}
	return list
}
