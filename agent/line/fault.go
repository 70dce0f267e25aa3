package line

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/agent/est"
	"github.com/hallmark-iot/hallmark/agent/link"
)

// Faults of a call, which the trusted side tells apart. None of them is of the device: whatever the part says, the device goes on.
const (
	faultStatus     = "status"     // *link.Status
	faultEnrolment  = "enrolment"  // *est.Status
	faultPending    = "pending"    // *est.Pending
	faultUnverified = "unverified" // the server's certificate is not believed
	faultAlert      = "alert"      // the server ended the handshake
	faultName       = "name"       // the server's name is not found
	faultOther      = "other"
)

// errHungUp says that the part did not answer to the end.
var errHungUp = errors.New("the network's process hung up")

// faultOf says what went wrong with a call.
func faultOf(err error) reply {
	r := reply{Fault: faultOther, Text: err.Error()}
	if s, ok := errors.AsType[*link.Status](err); ok {
		r = reply{Fault: faultStatus, Text: s.Text, Code: s.Code, After: seconds(s.After)}
	} else if s, ok := errors.AsType[*est.Status](err); ok {
		r = reply{Fault: faultEnrolment, Text: s.Text, Code: s.Code, After: seconds(s.After)}
	} else if p, ok := errors.AsType[*est.Pending](err); ok {
		r = reply{Fault: faultPending, Text: p.Text, After: seconds(p.After)}
	} else if errors.As(err, new(*tls.CertificateVerificationError)) || errors.As(err, new(x509.UnknownAuthorityError)) || errors.As(err, new(x509.CertificateInvalidError)) {
		r.Fault = faultUnverified
	} else if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == remoteError {
		r.Fault = faultAlert
	} else if errors.As(err, new(*net.DNSError)) {
		r.Fault = faultName
	}
	r.Text = strings.ToValidUTF8(r.Text[:min(len(r.Text), maxText-8)], "?")
	return r
}

// remoteError is how crypto/tls tells of the other side's alerts.
const remoteError = "remote error"

func seconds(d time.Duration) uint32 { return uint32(min(max(d/time.Second, 0), 24*60*60)) }

// err is the fault as the agent knows it; nil: there is none. What the part says in words is cut, so that it floods nothing.
func (r reply) err() error {
	text := strings.ToValidUTF8(r.Text[:min(len(r.Text), maxText)], "?")
	after := time.Duration(min(r.After, 24*60*60)) * time.Second
	switch r.Fault {
	case "":
		return nil
	case faultStatus:
		return &link.Status{Code: r.Code, Text: text, After: after}
	case faultEnrolment:
		return &est.Status{Code: r.Code, Text: text, After: after}
	case faultPending:
		return &est.Pending{After: max(after, time.Second), Text: text}
	case faultUnverified:
		return &tls.CertificateVerificationError{Err: errors.New(text)}
	case faultAlert:
		return &net.OpError{Op: remoteError, Err: errors.New(text)}
	case faultName:
		return &net.DNSError{Err: text}
	}
	return errors.New(text)
}
