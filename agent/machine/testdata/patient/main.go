// Command patient is a program of a release: it is well as soon as there is a file "ready" in its directory. With the argument "stubborn" it does not isolate itself.
package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
)

func main() {
	fmt.Println(os.Args[1], "begins")
	l, err := net.FileListener(os.NewFile(3, "health"))
	if err != nil {
		panic(err)
	}
	for {
		c, err := l.Accept()
		if err != nil {
			panic(err)
		}
		line, err := bufio.NewReader(c).ReadString('\n')
		if err == nil {
			_, _ = fmt.Fprintln(c, answer(strings.TrimSpace(line)))
		}
		_ = c.Close()
	}
}

func answer(question string) string {
	switch question {
	case "health":
		if _, err := os.Stat("ready"); err != nil {
			return "fail it is not ready"
		}
		return "ok it is ready"
	case "isolate on", "isolate off":
		if slices.Contains(os.Args, "stubborn") {
			return "fail no"
		}
		return "ok"
	}
	return ""
}
