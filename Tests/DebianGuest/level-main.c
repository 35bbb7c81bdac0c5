void level(void);
int main(void)
{
    level();
    return 0;
}
