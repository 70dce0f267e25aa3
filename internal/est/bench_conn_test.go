package est_test

import (
	"crypto/tls"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/hallmark-iot/hallmark/internal/door"
)

// BenchmarkConnect is a connection with a full TLS 1.3 handshake and a client certificate, until the server's first byte has come: to the
// door with our verification and its bounds, and to crypto/tls alone, which verifies the same chains. Devices are played on the same cores,
// and come again, as devices do.
func BenchmarkConnect(b *testing.B) {
	w := newWorld(b)
	devices := make([]tls.Certificate, 256)
	for i := range devices {
		_, devices[i] = w.made(true)
	}
	bare := w.server.TLS.Clone()
	bare.VerifyConnection, bare.ClientAuth, bare.ClientCAs = nil, tls.RequireAndVerifyClientCert, w.roots
	for name, listen := range map[string]func(net.Listener) net.Listener{
		"ours": func(l net.Listener) net.Listener { return door.New(l, w.server.TLS, door.Limits{}) },
		"bare": func(l net.Listener) net.Listener { return tls.NewListener(l, bare) },
	} {
		b.Run(name, func(b *testing.B) {
			l, err := new(net.ListenConfig).Listen(b.Context(), "tcp", "127.0.0.1:0")
			must(b, err)
			var served sync.WaitGroup
			on := listen(l)
			served.Go(func() {
				for {
					c, err := on.Accept()
					if err != nil {
						return
					}
					served.Go(func() {
						_, _ = c.Write([]byte{1}) // after the handshake; a failure is seen on the other side
						_ = c.Close()
					})
				}
			})
			var next atomic.Int64
			b.SetParallelism(8)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					d := devices[int(next.Add(1))%len(devices)]
					c, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{RootCAs: w.roots, Certificates: []tls.Certificate{d}, MinVersion: tls.VersionTLS13})
					if err != nil {
						b.Error(err)
						return
					}
					if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
						b.Error(err)
					}
					_ = c.Close()
				}
			})
			b.StopTimer()
			must(b, l.Close())
			served.Wait()
		})
	}
}
