/* The floor: what one epoll loop in C needs to have every port of a range answer a challenge.

   floor ADDRESS FIRST LAST CHALLENGE WINDOW MILLISECONDS TRIES

   CHALLENGE is a file; its bytes are sent on each connection, and as many are awaited. The MAC
   of the answer is not checked, its first four bytes are. Prints seconds, then one line for
   each state with its ports: open, closed, silent, foreign. IPv4 only. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum state { WAITING, OPEN, CLOSED, SILENT, FOREIGN };
static const char *const names[] = {"waiting", "open", "closed", "silent", "foreign"};

struct attempt {
    int fd, port, tries, received, asked;
    double deadline;
    char head[4];
    enum state state;
};

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static char challenge[9000];
static int challenge_bytes, epoll_fd, window, in_window;
static double patience;
static struct sockaddr_in to;

static void begin(struct attempt *a) {
    static const struct linger none = {1, 0};
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET};
    a->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (a->fd < 0) {
        perror("socket");
        exit(1);
    }
    setsockopt(a->fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
    to.sin_port = htons(a->port);
    a->asked = a->received = 0;
    a->deadline = now() + patience;
    a->tries++;
    connect(a->fd, (struct sockaddr *)&to, sizeof to);
    event.data.ptr = a;
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, a->fd, &event);
}

static void end(struct attempt *a, enum state state) {
    close(a->fd);
    a->fd = -1;
    a->state = state;
}

static void serve(struct attempt *a, unsigned events) {
    char buffer[9000];
    int code = 0, bytes;
    socklen_t size = sizeof code;
    if (a->fd < 0) return;
    if (!a->asked) {
        getsockopt(a->fd, SOL_SOCKET, SO_ERROR, &code, &size);
        if (code) {
            end(a, code == ECONNREFUSED ? CLOSED : SILENT);
            return;
        }
        if (!(events & EPOLLOUT)) return;
        a->asked = 1;
        if (send(a->fd, challenge, challenge_bytes, 0) != challenge_bytes) {
            end(a, FOREIGN);
            return;
        }
    }
    while ((bytes = recv(a->fd, buffer, sizeof buffer, 0)) > 0) {
        if (a->received < 4) memcpy(a->head + a->received, buffer, bytes < 4 ? bytes : 4);
        a->received += bytes;
        if (a->received >= challenge_bytes) {
            end(a, memcmp(a->head, challenge, 4) ? FOREIGN : OPEN);
            return;
        }
    }
    if (bytes == 0 || errno != EAGAIN) end(a, FOREIGN);
}

int main(int argc, char **argv) {
    struct epoll_event events[256];
    if (argc != 8) {
        fprintf(stderr, "floor ADDRESS FIRST LAST CHALLENGE WINDOW MILLISECONDS TRIES\n");
        return 2;
    }
    int first = atoi(argv[2]), count = atoi(argv[3]) - first + 1, tries = atoi(argv[7]);
    FILE *file = fopen(argv[4], "rb");
    if (!file || inet_pton(AF_INET, argv[1], &to.sin_addr) != 1 || count < 1) return 2;
    challenge_bytes = fread(challenge, 1, sizeof challenge, file);
    fclose(file);
    to.sin_family = AF_INET;
    window = atoi(argv[5]);
    patience = atoi(argv[6]) / 1000.0;
    struct attempt *all = calloc(count, sizeof *all);
    epoll_fd = epoll_create1(0);
    double began = now();
    int next = 0, left = count;
    while (left) {
        /* The window is for those that make progress: silent ones leave it after 30 ms. */
        double time = now(), due = time + 1;
        in_window = left = 0;
        for (int i = 0; i < next; i++) {
            struct attempt *a = &all[i];
            if (a->state != WAITING) continue;
            if (time >= a->deadline) {
                end(a, a->tries < tries ? WAITING : SILENT);
                if (a->state == WAITING) begin(a);
            }
            left += a->state == WAITING;
            if (a->state == WAITING && a->deadline < due) due = a->deadline;
            in_window += a->state == WAITING && time < a->deadline - patience + 0.03;
        }
        for (; next < count && in_window < window; next++, in_window++, left++) {
            all[next].port = first + next;
            begin(&all[next]);
        }
        left += count - next;
        int wait = next < count ? 5 : (int)((due - time) * 1000) + 1;
        int ready = left ? epoll_wait(epoll_fd, events, 256, wait) : 0;
        for (int i = 0; i < ready; i++) serve(events[i].data.ptr, events[i].events);
    }
    printf("%.4f\n", now() - began);
    for (int state = OPEN; state <= FOREIGN; state++) {
        printf("%s", names[state]);
        for (int i = 0; i < count; i++)
            if (all[i].state == (enum state)state) printf(" %d", all[i].port);
        printf("\n");
    }
    return 0;
}
