// Package line is the device's network code in a process of its own.
//
// Stage 3, field, on the device. TLS, HTTP and whatever else reads what a network sends run in the network's part: the agent's own file, started anew with
// another user, no file of the board, no key, and no way to start anything (launch.StartPart). All else stays where the keys are: what to ask for, what to believe of
// the answers, what is signed. A call is a connection of its own between the two processes, made by the side that is trusted and handed over: a question, and the answer.
//
// It guarantees that who takes the network's part over has what the server's own key would give him, the device's ear: he says what the server says, unsigned, or
// keeps silent; and, as long as a call is under way, some signatures of the key that the call shows itself with, over digests of his choice, because that is what a handshake
// signs. It trusts the kernel to hold the part, and nothing that comes from it: answers are bounded, strictly decoded, and judged by their signatures.
package line

import (
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// part is the network part's name.
const part = "network"

// The part's files.
const (
	fileCalls  = iota // where calls are handed over
	fileAsks          // where it has something signed
	fileProofs        // where it brings the questions of strangers
	fileDoor          // where strangers come in
)

// withDoor is the argument that says that there is a door.
const withDoor = "door"

// question is the first thing on a call's connection.
type question struct {
	Do      string   `cbor:"1,keyasint"`
	Server  string   `cbor:"2,keyasint,omitempty"` // base URL
	Anchors [][]byte `cbor:"3,keyasint,omitempty"` // who may vouch for it (DER)
	Chain   [][]byte `cbor:"4,keyasint,omitempty"` // what the device shows, leaf first (DER)
	Now     int64    `cbor:"5,keyasint,omitempty"` // the device's time, in seconds
	Call    string   `cbor:"6,keyasint,omitempty"` // of post: link's name of the call
	Body    []byte   `cbor:"7,keyasint,omitempty"`
	Digest  []byte   `cbor:"8,keyasint,omitempty"` // of artifact
	Offset  int64    `cbor:"9,keyasint,omitempty"`
	Renew   bool     `cbor:"10,keyasint,omitempty"` // of enrol
	Path    []string `cbor:"11,keyasint,omitempty"` // of page
}

// What is asked.
const (
	doPost     = "post"
	doArtifact = "artifact"
	doEnrol    = "enrol"
	doPage     = "page"
	doPing     = "ping"
)

// reply is an answer, or with More a piece of one.
type reply struct {
	Fault        string   `cbor:"1,keyasint,omitempty"` // one of the faults below; empty: none
	Text         string   `cbor:"2,keyasint,omitempty"` // at most maxText bytes
	Code         int      `cbor:"3,keyasint,omitempty"` // of HTTP
	After        uint32   `cbor:"4,keyasint,omitempty"` // seconds
	Body         []byte   `cbor:"5,keyasint,omitempty"`
	Certificates [][]byte `cbor:"6,keyasint,omitempty"`
	CAs          [][]byte `cbor:"7,keyasint,omitempty"`
	More         bool     `cbor:"8,keyasint,omitempty"`
}

// ask is what the part has done for it.
type ask struct {
	Do     string   `cbor:"1,keyasint"`
	As     [32]byte `cbor:"2,keyasint"`           // SHA-256 of the certificate whose call it is
	Digest []byte   `cbor:"3,keyasint,omitempty"` // of sign
	Hash   uint     `cbor:"4,keyasint,omitempty"` // crypto.Hash that made it
	Line   string   `cbor:"5,keyasint,omitempty"` // of request: the line's name (est.Binding)
}

const (
	askSign    = "sign"
	askRequest = "request" // for a certificate
)

// given is what comes of it.
type given struct {
	Fault string `cbor:"1,keyasint,omitempty"`
	Data  []byte `cbor:"2,keyasint,omitempty"`
}

// stranger is a challenge that somebody near the device has brought, and proof what he gets.
type stranger struct {
	Challenge []byte `cbor:"1,keyasint"`
}

type proof struct {
	Proof []byte `cbor:"1,keyasint,omitempty"`
	Error string `cbor:"2,keyasint,omitempty"`
}

// Bounds of what is said.
const (
	maxQuestion = 1 << 20
	maxReply    = 1 << 20
	maxAsk      = 4 << 10
	maxGiven    = 16 << 10
	maxStranger = 1 << 10
	maxProof    = 64 << 10
	maxPiece    = 64 << 10 // of an artifact
	maxText     = 512
)

// How long a call may take, as the trusted side sees it; the part itself gives up earlier. Who does not keep to it hangs, and is started anew.
const (
	callTime    = 60 * time.Second
	enrolTime   = 3 * time.Minute
	pieceTime   = 2 * time.Minute // to the next piece of an artifact
	pingTime    = 10 * time.Second
	handOverMax = 5 * time.Second
)

// pair makes two connected sockets.
func pair() (mine *net.UnixConn, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	near, far := os.NewFile(uintptr(fds[0]), "near"), os.NewFile(uintptr(fds[1]), "far")
	mine, err = socket(near)
	if err != nil {
		return nil, nil, errors.Join(err, far.Close())
	}
	return mine, far, nil
}

// socket takes a file for the socket that it is, and closes the file.
func socket(f *os.File) (*net.UnixConn, error) {
	c, err := net.FileConn(f)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("%s is no socket of this machine", f.Name()), c.Close())
	}
	return u, nil
}

// handOver gives a file away by a socket.
func handOver(to *net.UnixConn, f *os.File) error {
	if err := to.SetWriteDeadline(time.Now().Add(handOverMax)); err != nil {
		return err
	}
	_, _, err := to.WriteMsgUnix([]byte{0}, unix.UnixRights(int(f.Fd())), nil)
	return err
}

// takeOver takes the next connection that is given.
func takeOver(from *net.UnixConn) (*net.UnixConn, error) {
	var one [1]byte
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := from.ReadMsgUnix(one[:], oob)
	if err != nil {
		return nil, err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) != 1 {
		return nil, errors.Join(errors.New("no connection was handed over"), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, errors.Join(errors.New("no connection was handed over"), err)
	}
	unix.CloseOnExec(fds[0])
	return socket(os.NewFile(uintptr(fds[0]), "call"))
}
