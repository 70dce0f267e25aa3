package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/wire"
)

// besideTime is how long a device may take to answer who stands beside it.
const besideTime = 20 * time.Second

// askBeside has the device at an address prove itself: one JSON object a line, as the agent's local sockets speak (agent/local.go).
func askBeside(ctx context.Context, address string, nonce []byte) ([]byte, error) {
	network := "tcp"
	if strings.ContainsRune(address, '/') {
		network = "unix"
	}
	ctx, cancel := context.WithTimeout(ctx, besideTime)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, fmt.Errorf("the device at %s: %w; does its agent run with --prove?", address, err)
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	if err := json.NewEncoder(conn).Encode(map[string]any{"op": "prove", "challenge": nonce}); err != nil {
		return nil, fmt.Errorf("the device at %s: %w", address, err)
	}
	line, err := bufio.NewReader(io.LimitReader(conn, wire.MaxEnvelope*2)).ReadBytes('\n')
	if err != nil {
		return nil, fmt.Errorf("the device at %s has not answered: %w", address, err)
	}
	var reply struct {
		Proof []byte `json:"proof"`
		Error string `json:"error"`
	}
	if err := json.Unmarshal(line, &reply); err != nil {
		return nil, fmt.Errorf("what is at %s is no device of this kind: %w", address, err)
	}
	if reply.Error != "" || len(reply.Proof) == 0 {
		return nil, errors.New("the device refuses: " + oneLine(reply.Error))
	}
	return reply.Proof, nil
}
