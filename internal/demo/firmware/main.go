// Command firmware is the small program that the demo's devices run: it measures something, and says how it is.
//
// Stage 3, field, on the device. It answers on the health socket it was started with. How it behaves is decided when it is
// built: version and behaviour are linked in, so that a good and a sick release are different bytes.
package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"strings"
	"time"
)

// Set by the linker.
var (
	version   = "0.0.0"
	behaviour = "good" // or "sick"
)

func main() {
	fmt.Fprintln(os.Stderr, "firmware:", serve())
	os.Exit(1)
}

// serve answers until the socket fails, and says why.
func serve() error {
	l, err := net.FileListener(os.NewFile(3, os.Getenv("LISTEN_FDNAMES"))) // open already: it may make no sockets
	if err != nil {
		return err
	}
	started := time.Now()
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		line, err := bufio.NewReader(c).ReadString('\n')
		if err == nil {
			fmt.Fprintln(c, answer(strings.TrimSpace(line), time.Since(started)))
		}
		c.Close()
	}
}

func answer(question string, up time.Duration) string {
	switch question {
	case "health":
		if behaviour == "sick" {
			return fmt.Sprintf("fail version %s: pressure sensor does not answer", version)
		}
		return fmt.Sprintf("ok version %s, up %s", version, up.Round(time.Second))
	case "sample":
		load, err := os.ReadFile("/proc/loadavg")
		if err != nil {
			return "none"
		}
		return "load " + strings.Fields(string(load))[0]
	case "isolate on", "isolate off":
		return "ok"
	}
	return "what?"
}
