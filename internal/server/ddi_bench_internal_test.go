package server

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// BenchmarkPollDDI is one poll of a client of hawkBit's protocol that has no news and for which there are none: with its token, over TLS, on a connection that it keeps. Ours is a
// whole instance behind its own listener for such clients. Bare is net/http with TLS, whose handler looks at nothing and writes the same.
func BenchmarkPollDDI(b *testing.B) {
	w := newLoad(b)
	clients := make([]*ddiClient, pollers)
	for i := range clients {
		name, token := w.admitted(b, fmt.Sprintf("press-%d", i))
		clients[i] = &ddiClient{address: "/pump/controller/v1/" + name, token: token}
	}
	ours := w.others(b, false)
	answer := clients[0].begin(b, w.roots, ours)
	bare := w.beside(b, true, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/hal+json;charset=utf-8")
		_, _ = w.Write(answer) // the client went away
	})
	for _, who := range []struct{ name, address string }{{"ours", ours}, {"bare", bare}} {
		b.Run(who.name, func(b *testing.B) {
			for _, c := range clients {
				if got := c.begin(b, w.roots, who.address); string(got) != string(answer) {
					b.Fatalf("told %s, want %s", got, answer)
				}
			}
			pollDDI(b, clients)
		})
	}
}

// ddiClient is a client of hawkBit's protocol that asks over one connection.
type ddiClient struct {
	address, token string
	line           loadDevice // of it only the connection
}

func (c *ddiClient) request(method, path, body string) []byte {
	return fmt.Appendf(nil, "%s %s%s HTTP/1.1\r\nHost: bench\r\nAccept: application/hal+json\r\nAuthorization: TargetToken %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		method, c.address, path, c.token, len(body), body)
}

// begin connects, says what it is, and gives what it is told when it polls for the third time.
func (c *ddiClient) begin(b *testing.B, roots *x509.CertPool, address string) (told []byte) {
	b.Helper()
	conn, err := (&tls.Dialer{Config: &tls.Config{RootCAs: roots}}).DialContext(b.Context(), "tcp", address)
	benchMust(b, err)
	b.Cleanup(func() { _ = conn.Close() })
	c.line.conn, c.line.reader = conn.(*tls.Conn), bufio.NewReader(conn)
	ask := [][]byte{c.request(http.MethodPut, "/configData", `{"mode":"merge","data":{"hw":"A"}}`)}
	for range 3 {
		ask = append(ask, c.request(http.MethodGet, "", ""))
	}
	for _, request := range ask {
		r, err := c.line.call(request)
		benchMust(b, err)
		if r.status != http.StatusOK || strings.Contains(string(r.body), "href") {
			b.Fatalf("%s: %d %s", request, r.status, r.body)
		}
		told = r.body
	}
	return told
}

func pollDDI(b *testing.B, clients []*ddiClient) {
	begun := processorTime(b)
	b.ResetTimer()
	askDDI(b, clients, b.N)
	b.StopTimer()
	b.ReportMetric(float64((processorTime(b)-begun).Nanoseconds())/1e3/float64(b.N), "cpu-µs/op")
}

// askDDI has the clients poll so often together.
func askDDI(b *testing.B, clients []*ddiClient, n int) {
	var next atomic.Int64
	var all sync.WaitGroup
	for _, c := range clients {
		all.Go(func() {
			request := c.request(http.MethodGet, "", "")
			for next.Add(1) <= int64(n) {
				if r, err := c.line.call(request); err != nil || r.status != http.StatusOK {
					b.Errorf("%s: %d %s %v", c.address, r.status, r.body, err)
					return
				}
			}
		})
	}
	all.Wait()
}
