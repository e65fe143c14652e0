package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"
	"syscall"
)

// floor is a server that does what any must and nothing else: accept, read a request, answer with bytes
// made beforehand; write frames made beforehand; read what comes back, by epoll, without a look at it.
type floor struct {
	mu   sync.Mutex
	fds  []int
	ep   int
	read chan int // bytes that came in
}

var floorAnswer = append([]byte("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
	"Sec-WebSocket-Accept: ICX+Yqv66kxgM0FcWaLWlFLwTAI=\r\n\r\n"),
	serverFrame([]byte(`{"type":"welcome","session":"AAAAAAAAAAAAAAAA","ping_seconds":25}`))...)

// serverFrame is a text frame as a server sends it.
func serverFrame(payload []byte) []byte {
	b := []byte{0x80 | opText}
	if len(payload) < 126 {
		b = append(b, byte(len(payload)))
	} else {
		b = append(b, 126, byte(len(payload)>>8), byte(len(payload)))
	}
	return append(b, payload...)
}

// RunSocketsFloor serves as the floor until its input ends.
func RunSocketsFloor(ctx context.Context, in io.Reader, out io.Writer) error {
	ln, err := (&net.ListenConfig{KeepAlive: -1}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer ln.Close()
	f := &floor{read: make(chan int, 1024)}
	if f.ep, err = syscall.EpollCreate1(0); err != nil {
		return fmt.Errorf("epoll: %w", err)
	}
	go f.accept(ln)
	go f.poll()
	return serveHelper(in, out, helperReply{Addr: ln.Addr().String()}, f.do)
}

func (f *floor) accept(ln net.Listener) {
	for {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		go f.open(conn)
	}
}

func (f *floor) open(conn net.Conn) {
	defer conn.Close()
	buf := make([]byte, 2048)
	for n := 0; !bytes.HasSuffix(buf[:n], []byte("\r\n\r\n")); {
		m, err := conn.Read(buf[n:])
		if err != nil {
			return
		}
		n += m
	}
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(old uintptr) {
		fd, _, no := syscall.RawSyscall(syscall.SYS_FCNTL, old, syscall.F_DUPFD_CLOEXEC, 0)
		if no != 0 {
			return
		}
		_ = syscall.EpollCtl(f.ep, syscall.EPOLL_CTL_ADD, int(fd), &syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(fd)})
		_, _ = syscall.Write(int(fd), floorAnswer)
		f.mu.Lock()
		f.fds = append(f.fds, int(fd))
		f.mu.Unlock()
	})
}

func (f *floor) poll() {
	buf := make([]byte, 64<<10)
	events := make([]syscall.EpollEvent, 256)
	for {
		n, err := syscall.EpollWait(f.ep, events, -1)
		if err != nil && !errors.Is(err, syscall.EINTR) {
			return
		}
		came := 0
		for i := range max(n, 0) {
			m, err := syscall.Read(int(events[i].Fd), buf)
			if m <= 0 && !errors.Is(err, syscall.EAGAIN) {
				_ = syscall.Close(int(events[i].Fd))
			}
			came += max(m, 0)
		}
		if came > 0 {
			select {
			case f.read <- came:
			default: // nobody counts
			}
		}
	}
}

func (f *floor) do(r helperRequest) helperReply {
	switch r.Do {
	case "write":
		return f.write(r.Frames, max(1, r.Gather))
	case "drain":
		for len(f.read) > 0 {
			<-f.read
		}
	}
	return helperReply{}
}

// write sends frames round all connections, from as many threads as there are processors. A socket that
// takes no more is waited for.
func (f *floor) write(frames, gather int) helperReply {
	frame := bytes.Repeat(serverFrame(benchFrame(0, 0)), gather)
	f.mu.Lock()
	fds := f.fds
	f.mu.Unlock()
	if len(fds) == 0 {
		return helperReply{Error: "nobody is connected"}
	}
	workers := runtime.GOMAXPROCS(0)
	var wg sync.WaitGroup
	errs := make([]error, workers)
	for w := range workers {
		wg.Go(func() {
			runtime.LockOSThread()
			for i := w; i < frames/gather && errs[w] == nil; i += workers {
				errs[w] = writeAll(fds[i%len(fds)], frame)
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return helperReply{Error: err.Error()}
	}
	return helperReply{Frames: int64(frames / gather * gather)}
}

func writeAll(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := syscall.Write(fd, b)
		switch {
		case n > 0:
			b = b[n:]
		case errors.Is(err, syscall.EAGAIN):
			runtime.Gosched()
		case !errors.Is(err, syscall.EINTR):
			return fmt.Errorf("write: %w", err)
		}
	}
	return nil
}
