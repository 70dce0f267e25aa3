package witnessd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// Listen is where a witness is served; without Cert it is plain HTTP.
type Listen struct {
	Address   string
	Cert, Key string // PEM files; read anew for each connection, so that a renewed certificate needs no restart
}

// Serve serves until ctx ends; ready is called with the address once it is open.
func Serve(ctx context.Context, at Listen, h http.Handler, log *slog.Logger, ready func(url string)) error {
	certificate := func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		c, err := tls.LoadX509KeyPair(at.Cert, at.Key)
		return &c, err
	}
	scheme := "http"
	if at.Cert != "" {
		scheme = "https"
		if _, err := certificate(nil); err != nil {
			return fmt.Errorf("certificate: %w", err)
		}
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", at.Address)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", at.Address, err)
	}
	address := scheme + "://" + l.Addr().String()
	if at.Cert != "" {
		l = tls.NewListener(l, &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: certificate, NextProtos: []string{"h2", "http/1.1"}})
	}
	s := &http.Server{
		Handler: h, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 20 * time.Second, WriteTimeout: 30 * time.Second,
		IdleTimeout: 5 * time.Minute, MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	ready(address)
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := s.Shutdown(stop); err != nil {
		return errors.Join(err, s.Close())
	}
	return nil
}
